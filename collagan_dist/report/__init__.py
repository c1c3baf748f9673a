"""One self-contained HTML page about run folders, a sweep or a reproduction. Reads files only and never imports torch."""

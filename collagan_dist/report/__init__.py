"""One self-contained HTML page about run folders, a sweep or a reproduction. Reads files only and never imports torch."""

from collagan_dist.callable_package import make_callable

make_callable(__name__)  # collagan_dist.report(...) is a function of the Python interface, too

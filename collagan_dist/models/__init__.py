"""The networks, as single-device code: no ranks, no files, no YAML."""

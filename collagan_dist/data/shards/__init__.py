"""Shards on disk or behind a URL: format, manifest, checks, cache, and reading samples by number."""

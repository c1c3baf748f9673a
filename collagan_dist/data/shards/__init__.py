"""Shards on disk or behind a URL: manifest, wire format, checks, and the bytes of any sample by number."""

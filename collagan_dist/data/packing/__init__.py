"""Packing: turn the samples of a data set into shards."""

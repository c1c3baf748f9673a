"""Loading: from shards to batches on the device (order, decoding, geometry, holes)."""

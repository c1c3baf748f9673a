"""From pictures on disk to batches on the device: readers, shards, order, decoding, geometry, holes."""

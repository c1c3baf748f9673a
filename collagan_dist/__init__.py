"""Distributed training of collaborative GANs: shards, one generator for several tasks, one discriminator per task."""

__version__ = "0.1.0"

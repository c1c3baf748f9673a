"""A data set becomes shards: the plan, the work of one shard, and what a shard stores of a sample."""

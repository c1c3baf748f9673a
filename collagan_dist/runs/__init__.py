"""Run folders: paths, checkpoints, metrics, lease and state, each written and read in one place."""

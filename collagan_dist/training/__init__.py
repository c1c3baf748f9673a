"""The training loop, its guard against NaN and its logger."""

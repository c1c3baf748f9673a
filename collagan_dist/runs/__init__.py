"""Run folders: paths, checkpoints, metrics, lease and state, each written and read in one place."""

from collagan_dist.callable_package import make_callable

make_callable(__name__)  # collagan_dist.runs(...) is a function of the Python interface, too

"""`collagan doctor`: checks of a machine, or of all nodes of an allocation, before a training. It changes nothing."""

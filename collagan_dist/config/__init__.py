"""The configuration of a run: its tree of settings, the names of models, and how YAML files are read."""

"""Processes and devices: who runs where, how ranks talk, what survives. Knows nothing of our networks."""

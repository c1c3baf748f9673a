"""Processes and devices: launchers, rendezvous, collectives, hang detection and training engines. Knows no networks."""

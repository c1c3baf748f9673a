"""Audits of run folders: random stretches of a training and random samples of its evaluations are computed again and compared."""

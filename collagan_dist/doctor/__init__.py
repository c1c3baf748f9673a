"""`collagan doctor`: is this machine, or this allocation, fit to train? Looks, measures, changes nothing."""

from collagan_dist.doctor.examination import Report, examine

__all__ = ["Report", "examine"]

"""One self-contained page for one or several run folders. A run folder is the whole interface: no torch here."""

from collagan_dist.report.page import write_report

__all__ = ["write_report"]

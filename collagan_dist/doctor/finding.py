"""The result of one check: its state, what was found, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from collagan_dist.urls import redact

STATES = ("ok", "warning", "failed")  # from best to worst


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    state: str
    text: str
    mend: str = ""

    def __post_init__(self) -> None:
        # Variables of the environment are shown, too.
        object.__setattr__(self, "text", redact(self.text))


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, mend: str = "") -> Finding:
    return Finding(check, "warning", text, mend)


def failed(check: str, text: str, mend: str = "") -> Finding:
    return Finding(check, "failed", text, mend)


Check = Callable[[], Iterator[Finding]]


def run_check(name: str, check: Check) -> list[Finding]:
    """Return a check's findings. An exception inside the check becomes a failed finding."""
    findings: list[Finding] = []
    try:
        # += on a generator keeps what it gave before an exception.
        findings += check()
    except Exception as error:  # doctor looks for broken things, which raise anything
        findings.append(failed(name, f"{type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]))
    return findings

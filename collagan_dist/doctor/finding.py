"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

STATES = ("ok", "warning", "failed")  # in order of weight


@dataclass(frozen=True)
class Finding:
    """One line: the check, how it went, what is so, and how to mend it."""

    check: str
    state: str
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, mend: str = "") -> Finding:
    return Finding(check, "warning", text, mend)


def failed(check: str, text: str, mend: str = "") -> Finding:
    return Finding(check, "failed", text, mend)


Check = Callable[[], Iterator[Finding]]


def run(name: str, check: Check) -> list[Finding]:
    """A check's findings; one that breaks is itself a finding."""
    found: list[Finding] = []
    try:
        found += check()
    except Exception as error:  # whatever is broken here is what is looked for
        found.append(failed(name, f"{type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]))
    return found

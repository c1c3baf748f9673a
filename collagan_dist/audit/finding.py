"""What an audit found of one thing that was computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["equal", "within", "differs", "damaged", "undecided", "not comparable"]


@dataclass(frozen=True)
class AuditFinding:
    """One comparison. `subject` is what was computed again, `how` with what, `compared` what of it was compared.

    `reasons` say why bits need not be equal, `notes` what was not compared, `wrong` what differs, the most telling first. `share` is the
    distance to what was recorded and `bound` its limit, both in parts of the distance that the weights moved.
    """

    subject: str
    verdict: Verdict
    how: str = ""
    compared: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    share: float | None = None
    bound: float | None = None

    @property
    def failed(self) -> bool:
        return self.verdict in ("differs", "damaged")

    @property
    def confirmed(self) -> bool:
        return self.verdict in ("equal", "within")

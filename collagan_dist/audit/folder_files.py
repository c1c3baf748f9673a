"""Audits what a run folder has beside its checkpoints and evaluations: config.yaml, metrics.json and the lines of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collagan_dist import structured
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.audit.record import RunRecord, configuration
from collagan_dist.config.load import config_to_dict, differences, leaves, load_config
from collagan_dist.errors import CheckpointError, ConfigError, DataError
from collagan_dist.reproduce.results import read_evaluation
from collagan_dist.runs.metrics_log import count_damaged
from collagan_dist.units import format_things

_SHOWN = 3
# What an evaluation is of; of these its file has the name. The other keys say how far the run was, and how it was measured.
_SUBJECT = ("split", "hole", "blend", "settings", "manifest")


def audit_config(record: RunRecord) -> AuditFinding | None:
    """Compare config.yaml with the configuration of the newest checkpoint; None where both are the same."""
    path = record.paths.config
    for where, state in record.states():
        try:
            trained = config_to_dict(configuration(state, where))
        except CheckpointError:
            continue  # of another version; the audit of its stretch says so
        try:
            written = config_to_dict(load_config(str(path)))
        except ConfigError as error:
            return AuditFinding(path.name, "damaged", wrong=(str(error),))
        if not (changes := differences(trained, written)[:_SHOWN]):
            return None
        if state.get("step") in (taken := record.taken_over()):
            note = f"the newest checkpoint was taken from trial {taken[state['step']]}, with its configuration"
            return AuditFinding(path.name, "not comparable", notes=(note,))
        if record.world().get("generation") == state.get("generation"):
            return AuditFinding(path.name, "differs", wrong=tuple(f"{path}: not that of {where}: {c}" for c in changes))
        note = f"of a start that has saved no checkpoint, with another configuration: {'; '.join(changes)}"
        return AuditFinding(path.name, "not comparable", notes=(note,))
    return None


def audit_log(record: RunRecord) -> AuditFinding | None:
    """Count the lines of metrics.jsonl that are none; None where all are whole, or there is no log."""
    path = record.paths.metrics_log
    try:
        damaged = count_damaged(record.folder)
    except OSError as error:
        return AuditFinding(path.name, "not comparable", notes=(f"{path}: cannot be read ({error.strerror})",))
    said = f"{path}: {format_things(damaged, 'damaged line')}"
    return AuditFinding(path.name, "damaged", wrong=(said,)) if damaged else None


def audit_headline(record: RunRecord, evaluations: Sequence[Path]) -> AuditFinding | None:
    """Compare metrics.json with the evaluation that it repeats; None where both are the same, or there is no such file."""
    path = record.paths.headline_metrics
    try:
        headline = structured.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, structured.Malformed) as error:
        return AuditFinding(path.name, "damaged", wrong=(str(error),))
    if not isinstance(headline, dict):
        return AuditFinding(path.name, "damaged", wrong=(f"{path}: is no object",))
    known = [_metrics(one) for one in evaluations]
    found = [metrics for metrics in known if metrics and _is_of(metrics, headline, _SUBJECT)]
    if not found and not all(known):
        return AuditFinding(path.name, "not comparable", notes=("an evaluation that it may repeat is damaged",))
    if not found:
        return AuditFinding(path.name, "differs", wrong=(f"{path}: repeats no evaluation of the run",))
    metrics = found[0]
    if not _is_of(metrics, headline, ("step", "precision")):
        note = f"its evaluation was replaced by one of step {metrics.get('step')} in {metrics.get('precision')}"
        return AuditFinding(path.name, "not comparable", notes=(note,))
    wrong = differences(leaves(metrics), leaves(headline))[:_SHOWN]
    return AuditFinding(path.name, "differs", wrong=tuple(f"{path}: {text}" for text in wrong)) if wrong else None


def _metrics(evaluation: Path) -> dict[str, Any]:
    """Return an evaluation with all of its keys; {} for a damaged one, which its own audit says."""
    try:
        read_evaluation(evaluation)
        found = structured.read_json(evaluation)
    except (DataError, OSError, structured.Malformed):
        return {}
    return found if isinstance(found, dict) else {}


def _is_of(metrics: dict[str, Any], headline: dict[str, Any], keys: Sequence[str]) -> bool:
    return all(metrics.get(key) == headline.get(key) for key in keys)

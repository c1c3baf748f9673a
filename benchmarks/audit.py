"""How often an audit is wrong: sound runs that it calls different, and forged ones that it confirms.

    python -m benchmarks.audit [--runs N] [--seed S]

Trains small runs (drawn faces, 32x32 pixels, 12 steps, a checkpoint every 4) on one thread, and audits all stretches of each with two
threads, so that bits are not promised. Width, batch, learning rate and beginning of the adversarial losses are drawn for each run.
A run is audited on 1 and on 2 ranks. Then the same is trained with one thing changed (`FORGED`), its checkpoints and its log are
made to say that nothing was, and it is audited on 1 rank. Counted are the verdicts; `share` is the distance to what was recorded in
parts of the change of the weights, `bound` the largest that the rule admits.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks import drawn_shards, save
from collagan_dist.audit.audit import AuditRequest, audit
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.config.load import config_to_dict, load_config, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_rows
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import rewrite_state

STEPS, EVERY = 12, 4
PRECISIONS = ("fp32", "bf16")
RATES = ("optim.generator.lr", "optim.discriminators.lr")
FORGED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "1.5 times the learning rates": lambda keys: {key: 1.5 * keys[key] for key in RATES},
    "1.1 times the learning rates": lambda keys: {key: 1.1 * keys[key] for key in RATES},
    "another seed": lambda keys: {"seed": keys["seed"] + 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4, help="for each precision")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found: dict[str, list[AuditFinding]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shards = drawn_shards(Path(folder), 40, 1, "--set", "store_size=44")
        for number in range(args.runs):
            for precision in PRECISIONS:
                work = Path(folder) / f"{number}-{precision}"
                for kind, findings in _audits(work, _drawn(Random(args.seed + number), shards, precision)):
                    found.setdefault(f"{precision}, {kind}", []).extend(findings)
                    print(f"{number} {precision}, {kind}:", *(finding.verdict for finding in findings), flush=True)
    save(__file__, {"arguments": vars(args), **{kind: _summary(found[kind]) for kind in sorted(found)}})


def _drawn(draw: Random, shards: Path, precision: str) -> dict[str, Any]:
    """The keys of a random small run."""
    width, rate = draw.choice((4, 8)), draw.choice((2e-4, 1e-3))
    return {
        "model.widths.generator": width, "model.widths.discriminator": width, "data.shards": str(shards),
        "data.image_size": 32, "data.threads": 1, "runtime.threads": 1, "runtime.precision": precision, "seed": draw.randrange(1000),
        "schedule.steps": STEPS, "schedule.batch": draw.choice((4, 8)), "schedule.adv_from": draw.randrange(STEPS),
        **dict.fromkeys(RATES, rate), "checkpoint.every": EVERY, "checkpoint.keep": 5, "log.every": 1, "log.grid_every": 1000,
        "evaluate.every": 0,
    }  # fmt: skip


def _audits(work: Path, keys: dict[str, Any]) -> Iterator[tuple[str, list[AuditFinding]]]:
    torch.set_num_threads(1)
    sound = _train(work / "sound", keys)
    findings = _audit(sound, (1, 2))
    yield "2 threads for 1", findings[::2]
    yield "2 ranks for 1", findings[1::2]
    for name, change in FORGED.items():
        run = _train(work / name.replace(" ", "-"), {**keys, **change(keys)})
        _claim(run, load_config("stable", "M*_isd", _words(keys)), sound)
        yield name, _audit(run, (1,))


def _train(run: Path, keys: dict[str, Any]) -> Path:
    with redirect_stderr(io.StringIO()):
        train(load_config("stable", "M*_isd", _words(keys)), run, World())
    return run


def _words(keys: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in keys.items()]


def _claim(run: Path, config: Config, sound: Path) -> None:
    """Make a run say that it had this configuration, of the run `sound`: also that run's learning rates in the log."""
    RunPaths(run).config.write_text(to_yaml(config))
    rates = {row["step"]: row["lr"] for row in read_rows(sound) if row["kind"] == "train"}
    rows = [{**row, "lr": rates[row["step"]]} if row["kind"] == "train" else row for row in read_rows(run)]
    RunPaths(run).metrics_log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    claimed = {"config": config_to_dict(config), "seed": config.seed}
    for step in RunPaths(run).committed_steps():
        rewrite_state(RunPaths(run).checkpoint(step), lambda state: state.update(claimed))


def _audit(run: Path, ranks: tuple[int, ...]) -> list[AuditFinding]:
    request = AuditRequest(0, STEPS // EVERY, 0, ranks=ranks, threads=2)
    return list(audit(run, request).findings)


def _summary(findings: list[AuditFinding]) -> dict[str, Any]:
    shares = [finding.share for finding in findings if finding.share is not None]
    parts = [finding.share / finding.bound for finding in findings if finding.share is not None and finding.bound]
    return {
        "stretches": len(findings),
        "verdicts": dict(Counter(finding.verdict for finding in findings)),
        "share": {"median": _short(statistics.median(shares)), "largest": _short(max(shares))} if shares else {},
        "share / bound": {"median": _short(statistics.median(parts)), "largest": _short(max(parts))} if parts else {},
    }


def _short(value: float) -> float:
    return float(f"{value:.2g}")


if __name__ == "__main__":
    main()

"""`collagan audit`: derive random stretches of a run and random samples of its evaluations again, and compare."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
from pathlib import Path

from collagan_dist.commands.arguments import non_negative_int, positive_int, worker_count

logger = logging.getLogger(__name__)

HELP = "derive random stretches of a run and its evaluations again, and compare; the run is only read"
EXAMPLE = "collagan audit runs/first --stretches 3 --ranks 1,2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        help="run folder, which may be read-only and in training; or a sweep or reproduction",
    )
    parser.add_argument("--data", metavar="SHARDS", help="where the run's data set lies now, if it was moved")
    parser.add_argument(
        "--stretches",
        type=non_negative_int,
        default=1,
        metavar="N",
        help="parts of the training, between two kept checkpoints, to train again (default: %(default)s)",
    )
    parser.add_argument(
        "--evaluations",
        type=non_negative_int,
        default=1,
        metavar="N",
        help="evaluations to check, each on a random batch of its samples (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=positive_int,
        default=1,
        metavar="N",
        help="runs of a sweep or a reproduction to audit (default: %(default)s)",
    )
    parser.add_argument("--max-steps", type=positive_int, metavar="N", help="longest stretch that may be chosen")
    parser.add_argument(
        "--ranks",
        type=_numbers,
        default=(),
        metavar="N[,N...]",
        help="numbers of ranks on this machine (default: the run's own, and once another one)",
    )
    parser.add_argument("--threads", type=worker_count, metavar="N", help="threads of a rank (default: the run's own)")
    parser.add_argument(
        "--seed", type=non_negative_int, metavar="S", help="of what is chosen (default: a new one, which is printed)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there as JSON, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    from collagan_dist.commands.progress import busy
    from collagan_dist.distributed.stop_request import signals_interrupt
    from collagan_dist.distributed.world import detect_world
    from collagan_dist.errors import CheckpointError, ConfigError

    if detect_world().size > 1:
        raise ConfigError("start it alone, without torchrun or srun: it starts its ranks itself (--ranks)")
    with busy("loading torch"):
        from collagan_dist import files
        from collagan_dist.audit.audit import AuditRequest, audit

    seed = secrets.randbelow(1 << 31) if args.seed is None else args.seed
    if args.out is not None:
        files.check_file_writable(args.out)
    request = AuditRequest(
        seed, args.stretches, args.evaluations, args.max_steps, args.ranks, args.threads, args.data, args.runs
    )
    # So that the temporary folder goes and children end.
    with signals_interrupt(), busy("auditing"):
        found = audit(args.run, request, lambda text: logger.info(f"auditing {text}"))
    if args.out is not None:
        files.write_json(args.out, found.as_dict())
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        from collagan_dist.commands.tables import audit_table

        audit_table(found)
    return 0 if found.verdict == "passed" else CheckpointError.exit_code


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(positive_int(one) for one in text.split(",")))

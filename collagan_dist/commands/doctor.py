"""`collagan doctor`: check a machine or an allocation before training."""

from __future__ import annotations

import argparse
import json

HELP = "check libraries, devices, storage, the cluster and the network between ranks"
EXAMPLE = """collagan doctor --data packed/celeba
         srun collagan doctor"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="SHARDS", help="check this data set, too")
    parser.add_argument(
        "--net", action="store_true", help="check only the network between ranks (under srun or torchrun)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    from collagan_dist.commands.progress import busy
    from collagan_dist.distributed.world import detect_world
    from collagan_dist.errors import ClusterError

    world = detect_world()
    with busy("checking", world.is_rank0):
        from collagan_dist.doctor.report import run_checks

        report = run_checks(world, args.data, args.net)
    # Machine-readable output goes to the same place, once for all ranks.
    if world.is_rank0 or not report.complete:
        if args.json:
            print(json.dumps(report.as_dict()), flush=True)
        else:
            # Without a process group each rank reports its own failures; else rank 0 reports for all.
            for finding in report.findings if world.is_rank0 else report.failures:
                fix = f"; {finding.mend}" if finding.mend else ""
                print(f"{finding.state:8} {finding.check:19} {finding.text}{fix}", flush=True)
    return ClusterError.exit_code if report.failures else 0

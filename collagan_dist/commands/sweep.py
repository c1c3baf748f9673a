"""`collagan sweep`: a search over configurations on a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist import files, shell
from collagan_dist.commands.arguments import duration, non_negative_int, positive_int

if TYPE_CHECKING:
    from collagan_dist.sweep.prepare import PreparedSweep, SweepOptions

HELP = "search loss weights, or any other key, by trials over a Ray cluster; the same command continues"
EXAMPLE = """collagan sweep stable --space lambda --data packed/celeba --out sweeps/lambda --trials 32
         collagan sweep demo --space lambda --data packed/drawn --out sweeps/small --set schedule.steps=400 --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="preset name or YAML file: what every trial has in common")
    parser.add_argument(
        "--space",
        metavar="SPACE",
        required=True,
        help="lambda, or a YAML file: metric, search, scheduler, and the values of keys",
    )
    parser.add_argument(
        "--data",
        metavar="SHARDS",
        help="folder made by `collagan pack` or `collagan adopt`, or its URL (default: data.shards of CONFIG)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        type=Path,
        help="folder of trials and results, on storage that all nodes share",
    )
    parser.add_argument(
        "--trials", type=positive_int, metavar="N", help="configurations in all (default: 16; a grid's points)"
    )
    parser.add_argument(
        "--seeds",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="at the end, train the paper's λ and the best found with N other seeds each",
    )
    parser.add_argument("--model", metavar="NAME", help="the paper's model, as for `collagan train`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="change a key of every trial's configuration"
    )
    _add_cluster_arguments(parser)
    parser.add_argument(
        "--time-budget", type=duration, metavar="TIME",
        help="after so long, as 2h or 90m, trials save and end with exit code 75; each start of the same command has as much",
    )  # fmt: skip
    parser.add_argument("--stop-at", metavar="GOAL", help="end the search once a trial reaches it, as 'psnr_hole>=24'")
    parser.add_argument("--dry-run", action="store_true", help="print the first trials and the plan, and stop")


def _add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="a running Ray cluster (host:port, or auto; default: one of this machine's own)",
    )
    parser.add_argument(
        "--dashboard", action="store_true", help="start Ray's dashboard, too, on loopback (extra: dashboard)"
    )
    parser.add_argument("--workers", type=positive_int, default=1, metavar="N", help="ranks of a trial (default: 1)")
    parser.add_argument("--cpus", type=positive_int, default=1, metavar="N", help="CPUs of a rank (default: 1)")
    parser.add_argument("--gpus", type=float, metavar="F", help="GPUs of a rank, as 0.25 (default: 1 where there are any)")  # fmt: skip
    parser.add_argument(
        "--spread", action="store_true", help="put the ranks of a trial on different nodes, as far as possible"
    )
    parser.add_argument(
        "--concurrent", type=positive_int, metavar="N",
        help="most trials at a time (default: as many as fit; 16 on a cluster that starts nodes, fewer if it may not grow that far)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int | None:
    from collagan_dist.distributed.stop_request import StopRequest
    from collagan_dist.distributed.world import job_id
    from collagan_dist.sweep.prepare import SweepOptions, prepare
    from collagan_dist.sweep.resources import TrialResources

    options = SweepOptions(
        args.config, args.space, args.data, args.out, args.trials, args.seeds, args.model, tuple(args.set), args.ray,
        TrialResources(args.workers, args.cpus, args.gpus, args.spread), args.dashboard,
        args.concurrent, args.time_budget, args.stop_at,
    )  # fmt: skip
    if args.dry_run:
        _dry_run(prepare(options))
        return None
    # Under Slurm a signal asks for a stop; what does not stop is killed, so the process need not end itself.
    with StopRequest(by_launcher=bool(job_id())) as stop:
        from collagan_dist.commands.sweep_screen import Screen
        from collagan_dist.sweep.driver import run_sweep

        with Screen() as screen:
            code = run_sweep(options, stop, screen.show)
    _print_results(options)
    return code


def _dry_run(prepared: PreparedSweep) -> None:
    from collagan_dist.config.strict_yaml import dump
    from collagan_dist.sweep import schedule, search
    from collagan_dist.sweep.effects import sweep_warnings
    from collagan_dist.sweep.prepare import check_owner, constant_summary, need_of_sweep

    # The same checks as a real start, so that a dry run finds what would fail.
    check_owner(prepared.options.out)
    constant_summary(prepared)
    plan = prepared.plan
    space = plan.space
    for role, values in space.initial_points():
        print(f"# {role}:\n{dump(values)}", end="")
    if plan.trials > len(space.initial_points()):
        print(
            f"# the first one that is searched ({space.spec.search}):\n{dump(search.propose(space, plan.seed, 0, plan.trials, ())[0])}",
            end="",
        )
    # With --seeds N, the paper's λ and the best trial are each trained N times more.
    samples = schedule.expected_samples(plan) + 2 * plan.confirm * plan.total
    rungs = ", ".join(f"{rung:,}" for rung in plan.rungs)
    seeds = f", each with {plan.repeats} seeds" if plan.repeats > 1 else ""
    print(
        f"# {plan.trials} trials of up to {plan.total:,} samples{seeds}, compared by {', '.join(space.metrics)} at {rungs} "
        f"({space.spec.scheduler}): about {samples:,.0f} samples in all; each trial takes {prepared.options.resources}"
    )
    if names := space.constraint_values({}):
        print(f"# behind all others, and never the best: {', '.join(names)}")
    print(f"# {need_of_sweep(prepared, running=1)}")
    for warning in sweep_warnings(prepared):
        print(f"# warning: {warning}")
    print(f"# out: {files.one_line(prepared.options.out)}")  # read by slurm/sweep.sh


def _print_results(options: SweepOptions) -> None:
    for name in ("best.yaml", "trials.csv", "report.html"):
        if (options.out / name).exists():
            print(options.out / name)
    if (options.out / "best.yaml").exists():
        data = ("--data", options.data) if options.data is not None else ()  # else best.yaml says it
        print(f"next: {shell.collagan('train', options.out / 'best.yaml', *data)}")

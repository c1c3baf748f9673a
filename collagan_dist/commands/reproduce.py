"""`collagan reproduce`: the tables and figures of the paper."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from collagan_dist.commands.arguments import positive_float, positive_int

HELP = "reproduce the paper: train its models, write its tables and figures beside ours; the same command continues"
EXAMPLE = """collagan reproduce --data packed/celeba --out reproduction
         collagan reproduce --data packed/celeba --out quick --scale 0.01 --tables 1,3 --figures 4 --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_help = "preset name or YAML file of the paper's models (default: %(default)s)"
    parser.add_argument("config", metavar="CONFIG", nargs="?", default="stable", help=config_help)
    parser.add_argument(
        "--data", metavar="SHARDS", required=True, help="folder made by `collagan pack` or `collagan adopt`, or its URL"
    )
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="folder of runs, tables and figures")
    # Ranges of numbers have defaults here and not in ReproduceOptions alone: `--help` must not import it.
    for name, known in (("--tables", (1, 2, 3)), ("--figures", (1, 3, 4, 5, 6))):
        numbers = f"of {', '.join(map(str, known))}; none: '' (default: all)"
        parser.add_argument(name, type=partial(_numbers, known), default=known, metavar="N[,N...]", help=numbers)
    columns_help = (
        "what Table 1's columns O1 to O6 hide: the parts that the paper's words name, or those that its numbers fit "
        "(docs/paper.md; default: %(default)s)"
    )
    parser.add_argument("--columns", choices=("numbers", "words"), default="numbers", help=columns_help)
    scale_help = "length of every training, evaluation and search, as a fraction of CONFIG's (default: 1)"
    parser.add_argument("--scale", type=positive_float, default=1.0, metavar="F", help=scale_help)
    models_help = (
        "train these models of the tables alone, all with --seeds seeds, and test the claims about them (default: all)"
    )
    parser.add_argument(
        "--models",
        type=lambda text: tuple(map(str.strip, text.split(","))),
        default=(),
        metavar="M[,M...]",
        help=models_help,
    )
    seeds_help = "seeds of M_i, M*_i, M_isd and M*_isd, or of those that --models names (default: 1)"
    parser.add_argument("--seeds", type=positive_int, default=1, metavar="N", help=seeds_help)
    set_help = "change a key of every run's configuration; CE, SII and GFC keep their published losses and optimizers"
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help=set_help)
    dry_run_help = "print the runs, what is left of them, their time and storage as far as known, and stop"
    parser.add_argument("--dry-run", action="store_true", help=dry_run_help)
    # Each of these says where runs are trained.
    where = parser.add_mutually_exclusive_group()
    ranks_help = "processes of each training on this machine (default: one a GPU, else 1)"
    where.add_argument("--ranks", type=positive_int, metavar="N", help=ranks_help)
    slurm_help = "submit each missing run by sbatch with these options, and a last job that writes the tables"
    where.add_argument("--slurm", metavar="OPTIONS", help=slurm_help)
    ray_help = "spread the runs over a running Ray cluster (host:port, or auto)"
    where.add_argument("--ray", metavar="ADDRESS", help=ray_help)


def run(args: argparse.Namespace) -> int | None:
    from collagan_dist.reproduce.driver import check_out
    from collagan_dist.reproduce.plan import ReproduceOptions

    options = ReproduceOptions(
        args.config, args.data, args.out, args.tables, args.figures, args.scale, args.seeds, tuple(args.set), args.ranks,
        args.columns, args.models,
    )  # fmt: skip
    check_out(args.out)
    if args.dry_run:
        from collagan_dist.commands.progress import busy
        from collagan_dist.commands.tables import plan_table
        from collagan_dist.reproduce.estimate import estimate

        with busy("reading the runs"):
            found = estimate(options)
        plan_table(found)
        return None
    # An empty text is a choice, too: sbatch without further options.
    if args.slurm is not None:
        from collagan_dist.reproduce.slurm import submit

        for line in submit(options, args.slurm):
            print(line)
        return None
    from collagan_dist.distributed.stop_request import StopRequest

    # A launcher's signal (USR2, TERM) asks for a stop; the training that runs then saves and ends.
    with StopRequest() as stop:
        from collagan_dist.reproduce.driver import reproduce

        code = reproduce(options, stop, args.ray)
    # Also after failures: averages of what there is.
    from collagan_dist.commands.tables import averages_table

    averages_table(options.out, options.tables)
    print(f"tables and figures: {options.out}\nreport: {options.out / 'report.html'}")
    return code


def _numbers(known: tuple[int, ...], text: str) -> tuple[int, ...]:
    """Return the numbers in a list like "1,3", in the order of `known`."""
    # An empty list is useful: only figures, or only tables.
    names = [name.strip() for name in text.split(",")] if text.strip() not in ("", "none") else []
    if bad := [name for name in names if name not in map(str, known)]:
        raise argparse.ArgumentTypeError(f"{bad[0]!r} is not one of {', '.join(map(str, known))}")
    return tuple(number for number in known if str(number) in names)

"""`collagan COMMAND`: dispatch, errors as one message, exit codes. Heavy libraries are imported by the commands that run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from collagan_dist import __version__
from collagan_dist.commands import (
    complete,
    doctor,
    draw,
    evaluate,
    export,
    label,
    pack,
    report,
    reproduce,
    sweep,
    train,
    verify,
)
from collagan_dist.errors import CollaganError, Interrupted
from collagan_dist.log import log_to_stderr

logger = logging.getLogger(__name__)

COMMANDS = {
    "draw": draw,
    "label": label,
    "pack": pack,
    "verify": verify,
    "train": train,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "sweep": sweep,
    "complete": complete,
    "export": export,
    "report": report,
    "doctor": doctor,
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="collagan",
        description="Distributed training of collaborative GANs: complete a face, segment its parts, find its landmarks.",
        epilog="example: collagan draw faces && collagan pack shards/drawn.yaml --root faces --out packed && collagan train demo --data packed",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"collagan_dist {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        one = commands.add_parser(
            name, help=module.HELP, description=module.HELP, epilog=f"example: {module.EXAMPLE}", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.arguments(one)
    return top


def main(argv: Sequence[str] | None = None) -> NoReturn:
    args = parser().parse_args(argv)
    log_to_stderr()
    try:
        code = COMMANDS[args.command].run(args) or 0
    except CollaganError as error:
        if args.debug and error.exit_code != 75:
            raise
        code = report_error(args.command, error)
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if args.debug or error.filename is None:
            raise
        logger.error(f"collagan {args.command}: {error.filename}: {error.strerror}")
        code = 2
    except KeyboardInterrupt:
        logger.error(f"\ncollagan {args.command}: interrupted; the same command continues")
        code = Interrupted.exit_code
    sys.exit(code)


def report_error(command: str, error: CollaganError) -> int:
    """Say it, once for all ranks where they share it; the exit code.

    75 means "run me again"; launchers do not carry a rank's code reliably, so under one an interruption is a 0.
    """
    from collagan_dist.distributed.world import detect_world

    world = detect_world()
    if world.is_rank0 or not error.raised_on_all_ranks:
        logger.error(f"collagan {command}: {error}")
    return 0 if error.exit_code == 75 and world.launcher != "alone" else error.exit_code

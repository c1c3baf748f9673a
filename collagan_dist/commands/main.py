"""`collagan COMMAND`: choose the command, report its error as one message, end with its exit code."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from collagan_dist import __version__, files
from collagan_dist.commands import (
    adopt,
    audit,
    complete,
    config,
    doctor,
    draw,
    evaluate,
    export,
    init,
    label,
    pack,
    plan,
    report,
    reproduce,
    serve,
    sweep,
    train,
    verify,
)
from collagan_dist.commands.hints import HintingParser
from collagan_dist.errors import CollaganError, ConfigError, DataError, Interrupted
from collagan_dist.log import log_to_stderr
from collagan_dist.types import World
from collagan_dist.urls import HINT, has_secret, redact, redact_value

logger = logging.getLogger(__name__)

# Each module has HELP, EXAMPLE, add_arguments(parser) and run(args), and imports heavy libraries only in `run`:
# `collagan --help` answers in under half a second.
_MODULES = (
    init,
    draw,
    label,
    pack,
    adopt,
    verify,
    train,
    plan,
    evaluate,
    reproduce,
    sweep,
    complete,
    serve,
    export,
    report,
    audit,
    config,
    doctor,
)
# What these have done so far is kept, and not done again.
_CONTINUING = ("label", "pack", "adopt", "train", "reproduce", "sweep")
COMMANDS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}


def build_parser() -> HintingParser:
    top = HintingParser(
        prog="collagan",
        description="Distributed training of collaborative GANs: complete a face, segment its parts, find its landmarks.",
        epilog="example: collagan draw faces && collagan pack drawn --root faces --out packed && collagan train demo --data packed",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"collagan_dist {__version__}")
    # deepspeed and old versions of torch's launcher add it to every rank's arguments.
    top.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        # Without abbreviations: a new option must not change what an old script means.
        one = commands.add_parser(
            name, help=module.HELP, description=module.HELP, epilog=f"example: {module.EXAMPLE}", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.add_arguments(one)
    return top


def main(argv: Sequence[str] | None = None) -> NoReturn:
    sys.excepthook = _show_traceback
    # Python looks for garbage as it ends, which takes up to a second where torch is imported; what is frozen is left out.
    atexit.register(gc.freeze)
    words = sys.argv[1:] if argv is None else argv
    for word in filter(has_secret, words):  # before argparse, whose errors repeat words
        print(f"collagan: {redact_value(word)}: {HINT}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    args = build_parser().parse_args(words)
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    for stream in (sys.stdout, sys.stderr):
        # Names of files may be no UTF-8; they are printed as the bytes that they are.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    log_to_stderr()
    _give_home()
    try:
        if args.command != "doctor":  # which names them all
            _refuse_versions()
        code = COMMANDS[args.command].run(args) or 0
    except CollaganError as error:
        # An interruption is no error: it has no traceback that helps.
        if args.debug and error.exit_code != Interrupted.exit_code:
            raise
        code = report_error(args.command, error)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wants. What is still to be flushed at exit goes nowhere: else Python ends with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        # With a file name it is the user's file that is missing or not readable; without one it is a bug, or a full disk.
        full = files.is_disk_full(error)
        if args.debug or (error.filename is None and not full):
            raise
        where = error.filename or "a file without a name, perhaps in TMPDIR (--debug says more)"
        logger.error(f"collagan {args.command}: {where}: {error.strerror}{'; make room' if full else ''}")
        code = DataError.exit_code if full else ConfigError.exit_code
    except KeyboardInterrupt:
        # A dry run has nothing that could go on.
        goes_on = args.command in _CONTINUING and not getattr(args, "dry_run", False)
        logger.error(
            f"\ncollagan {args.command}: interrupted; the same command {'continues' if goes_on else 'begins again'}"
        )
        code = Interrupted.exit_code
    sys.exit(code)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _refuse_versions() -> None:
    """Raise ConfigError where an installed library is one that pyproject.toml does not admit."""
    from collagan_dist.distributed import versions  # here: its imports would delay --help

    versions.refuse_outside_bounds()


def _give_home() -> None:
    """Set HOME for a user of a service or a container, who has neither HOME nor an entry in passwd."""
    # Ray, torch and DeepSpeed ask for a home or a name when they are imported, and fail without one. As in containers, / is it.
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
        os.environ.setdefault("LOGNAME", f"id{os.geteuid()}")


def report_error(command: str, error: CollaganError) -> int:
    """Print an error, once if all ranks have the same one, and return the exit code."""
    from collagan_dist.distributed.world import detect_world

    try:
        world = detect_world()
    except CollaganError:  # it may be this very error
        world = World()
    if world.is_rank0 or not error.raised_on_all_ranks:
        logger.error(f"collagan {command}: {error}")
    # Launchers turn a rank's 75 into 1 or 143, so an interruption ends with 0 under one; RUN/requeue tells the batch script.
    interrupted = error.exit_code == Interrupted.exit_code
    return 0 if interrupted and world.launcher != "alone" else error.exit_code

"""Command lines for people to paste: every one that the program prints is written here."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

# bash's own names for these; all else that a terminal would not show as itself is a number.
_ESCAPES = {"\n": r"\n", "\t": r"\t", "\\": r"\\", "'": r"\'"}


def quote(word: object) -> str:
    """Return a word as bash takes it for one, on one line and in printable characters, whatever is in it."""
    # What begins with a dash would be an option.
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escape, text))}'"


def _escape(character: str) -> str:
    if known := _ESCAPES.get(character):
        return known
    if character.isprintable():
        return character
    # Names of files may be of any bytes. Octal, which ends after three digits whatever follows.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def join(*words: object) -> str:
    """Return a command line of these words."""
    return " ".join(map(quote, words))


def collagan(*words: object) -> str:
    """Return `collagan` with these arguments as a line."""
    return join(_program("collagan"), *words)


def _program(name: str) -> str:
    """Return a program of this environment by its name, or by its path where the shell would not find it."""
    place = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not place.exists() else str(place)


def relaunch(*words: object, launcher: str, ranks_here: int) -> str:
    """Return the line that starts `collagan` with these arguments by the launcher that started this process."""
    if launcher == "torchrun":
        # With all its options: without those a run of several nodes would start on one.
        options = _torchrun_options() or ("--nproc-per-node", ranks_here)
        # torchrun takes --run for an abbreviation of its own --run-path, unless -- ends its options.
        end = ("--",) if any(str(word).startswith("--run") for word in words) else ()
        return join(_program("torchrun"), *options, "-m", *end, "collagan_dist", *words)
    if launcher in ("mpi", "environment"):
        return f"{collagan(*words)}  # on all ranks, by the launcher that started them"
    return f"srun {collagan(*words)}" if launcher == "srun" else collagan(*words)


def _torchrun_options() -> tuple[str, ...]:
    """Return the options of the torchrun that is this process's parent, up to what it runs; () where it cannot be read."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return ()
    names = [os.fsdecode(word) for word in words]
    starts = [n for n, word in enumerate(names) if Path(word).name == "torchrun" or word == "torch.distributed.run"]
    ends = [n for n, word in enumerate(names) if word == "-m" and "collagan_dist" in names[n + 1 : n + 3]]
    return tuple(names[starts[0] + 1 : ends[0]]) if starts and ends else ()

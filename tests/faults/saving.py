"""Run by test_checkpoints.py: trainings that are disturbed while they save. They are forked, so libraries are imported once.

`stages CONFIG RUN`: the same command again and again, killed at one stage of a save after the other, then undisturbed.
`random CONFIG ROOT SEED...`: for each seed a run that is killed anywhere, then the same command again, into ROOT/SEED.
`full CONFIG RUN FILLER AT UNTIL`: a run whose disk is full from the AT-th save on, until before the UNTIL-th (0: never).
"""

import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from collagan_dist.commands.main import main
from collagan_dist.runs import checkpoint
from collagan_dist.training import loop  # noqa: F401 (before the forks)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[..., Any], *args: Any) -> int:
    """What a child that calls `work` ended with: its code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*args)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at(save: int, name: str, instead: Callable[..., Any]) -> None:
    """At the save of that number, call `instead` in place of a function of checkpoint.py; it gets the function first."""
    former = getattr(checkpoint, name)
    counted = checkpoint.save
    saves = 0

    def counting(*args: Any, **kwargs: Any) -> int:
        nonlocal saves
        saves += 1
        return counted(*args, **kwargs)

    def perhaps(*args: Any, **kwargs: Any) -> Any:
        return instead(former, *args, **kwargs) if saves == save else former(*args, **kwargs)

    checkpoint.save = counting
    setattr(checkpoint, name, perhaps)


def die_flushed(write: Callable[..., Any], path: Path, pieces: Any) -> Any:
    """Killed while the optimizer's file is half on disk."""
    if path.name == "optimizer.safetensors":
        content = b"".join(bytes(piece) for piece in pieces)
        path.write_bytes(content[: len(content) // 2])
        die()
    return write(path, pieces)


def die_at_manifest(write: Callable[..., Any], path: Path, pieces: Any) -> Any:
    return die() if path.name == "manifest.json" else write(path, pieces)


def die_removing(remove: Callable[..., Any], doomed: list[Path]) -> Any:
    """Killed while a checkpoint that was set aside is half removed."""
    for path in doomed:
        next(path.iterdir()).unlink()
        die()
    return remove(doomed)


STAGES: dict[str, tuple[str, Callable[..., Any]]] = {
    "before": ("_write_files", die),
    "mid-file": ("_write_hashed", die_flushed),
    "before-manifest": ("_write_hashed", die_at_manifest),
    "before-rename": ("commit", die),
    "after-rename": ("_set_aside_old", die),
    "while-removing": ("remove", die_removing),
}


def die_at_call(number: int) -> None:
    """Killed before the n-th thing that the writing thread asks of the file system."""
    count = 0

    def hook(event: str, _: Any) -> None:
        nonlocal count
        if threading.current_thread().name.startswith("checkpoint") and event.startswith(("open", "os.", "shutil.")):
            count += 1
            if count == number:
                die()

    sys.addaudithook(hook)


def start(command: list[str], disturb: Callable[..., object], *args: Any) -> None:
    disturb(*args)
    main(command)


def stages(config: str, run: str) -> None:
    command = ["train", config, "--run", run]
    # The first start saves twice before, the others meet what the one before left.
    for number, (stage, what) in enumerate(STAGES.items()):
        print("ended", stage, forked(start, command, at, 1 if number else 3, *what), flush=True)
    print("ended", "undisturbed", forked(main, command), flush=True)


def killed_at_random(config: str, root: str, *seeds: str) -> None:
    for seed in seeds:
        command = ["train", config, "--run", f"{root}/{seed}"]
        code = forked(start, command, die_at_call, random.Random(seed).randrange(1, 150))
        print("ended", seed, code, forked(main, command), flush=True)


def full(config: str, run: str, filler: str, begin: str, end: str) -> None:
    counted = checkpoint.save
    saves = 0

    def save(*args: Any, **kwargs: Any) -> int:
        nonlocal saves
        saves += 1
        if saves == int(begin):
            fill(Path(filler))
        if saves == int(end):
            Path(filler).unlink()
        return counted(*args, **kwargs)

    checkpoint.save = save
    print("ended", forked(main, ["train", config, "--run", run]), flush=True)


def fill(path: Path) -> None:
    """Take all room that there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while file.write(b"\1" * size):
                    pass


if __name__ == "__main__":
    {"stages": stages, "random": killed_at_random, "full": full}[sys.argv[1]](*sys.argv[2:])

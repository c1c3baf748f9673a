"""docs/errors.md: each of its errors is made, and its message and exit code are those of the page."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.commands.main import main
from collagan_dist.config.load import to_yaml
from collagan_dist.runs import lease as leases
from tests.conftest import ROOT
from tests.data.wds_tars import by_tarfile
from tests.faults.test_packing import private_mounts
from tests.runs.run_folders import rewrite_state
from tests.training.small import small

PAGE = (ROOT / "docs/errors.md").read_text()
ENTRIES = {
    title: (command, message, int(code))
    for title, command, message, code in re.findall(
        r"^### (.+)\n\n```console\n\$ (.+)\n((?:.*\n)+?)```\n\nExit (\d+)\.", PAGE, re.MULTILINE
    )
}
TRAIN = "collagan train small.yaml --data packed/drawn --out runs/first"
CHECKPOINT = "runs/first/checkpoints/step-00000002"


def command(words: str) -> int:
    """The exit code of a command in this process; what it says goes where it goes."""
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(words)[1:] if words.startswith("collagan ") else shlex.split(words))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def workplace(drawn: Path, shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page's reader has it: faces, packed faces, and a run of two steps with its configuration."""
    place = tmp_path_factory.mktemp("workplace")
    shutil.copytree(drawn, place / "faces")
    shutil.copytree(shards.folder, place / "packed/drawn")
    shutil.copy(drawn / "Img/img_celeba/000001.jpg", place / "photo.jpg")
    (place / "small.yaml").write_text(to_yaml(small(Path("packed/drawn"), schedule__steps=2)))
    before = Path.cwd()
    os.chdir(place)
    try:
        assert command(TRAIN) == 0
    finally:
        os.chdir(before)
    return place


def edit(file: str, pattern: str, text: str) -> None:
    path = Path(file)
    path.write_text(re.sub(pattern, text, path.read_text(), count=1))


def change_byte(file: str, place: int) -> None:
    content = bytearray(Path(file).read_bytes())
    content[place] ^= 1
    Path(file).write_bytes(content)


def write(file: str, text: str) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)


def draw(file: str, pixels: np.ndarray) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(file, pixels)


def without_annotation() -> None:
    """packed/drawn has pictures alone."""
    shutil.rmtree("packed/drawn")
    assert command("pack folder --root faces/Img/img_celeba --out packed/drawn --set store_size=44 --workers 1") == 0


def tars() -> None:
    """Tars without a manifest."""
    Path("tars").mkdir()
    for path in Path("packed/drawn").glob("*.tar"):
        shutil.copy(path, "tars")


def unsorted_tars() -> None:
    """All pictures of a tar first, as a disk may list them."""
    tars()
    samples, path = {}, Path("tars/train-000000.tar")
    with tarfile.open(path) as tar:
        for member in tar:
            samples[member.name] = tar.extractfile(member).read()
    by_tarfile(path, sorted(samples.items(), key=lambda item: item[0].partition(".")[::-1]))


def other_data() -> None:
    shutil.rmtree("packed/drawn")
    assert command("draw more --count 50 --seed 8 --workers 1") == 0
    assert command("pack drawn --root more --out packed/drawn --set store_size=88 --workers 1") == 0


def moved_data() -> None:
    Path("packed/drawn").rename("moved")
    # The run is a copy, whose record names the data set of its original.
    edit("runs/first/data.json", r'"shards": "[^"]*"', f'"shards": "{Path("packed/drawn").absolute()}"')


def damage_pictures() -> None:
    for number in range(1, 13):
        Path(f"faces/Img/img_celeba/{number:06d}.jpg").write_bytes(b"no picture")


def exported() -> None:
    assert command("export runs/first --out models/first") == 0
    change_byte("models/first/generator.safetensors", -5)


@contextmanager
def other_start() -> Iterator[None]:
    """Another process of this machine has the lease of runs/first."""
    with subprocess.Popen(["sleep", "600"]) as other:
        owner = leases.this_process(2, "cafe", "", 1.0)
        owner = replace(owner, pid=other.pid, process_start=leases.process_start_time(other.pid))
        Path("runs/first/lease").write_text(owner.text())
        try:
            yield
        finally:
            other.kill()


@contextmanager
def listener() -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 29564)):
        yield


@contextmanager
def interruption() -> Iterator[None]:
    """Ctrl-C when the first line of metrics is there."""

    def press() -> None:
        while not Path("runs/new/metrics.jsonl").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    yield
    thread.join()


def pictures(*names: str) -> None:
    for name in names:
        draw(name, np.zeros((90, 90, 3), np.uint8))


SPACE = "metric: psnr_hole\nsearch: grid\nspace:\n  optim.generator.lr: {choice: [1e-3, 3e-3]}\n"
LISTS, LABEL = "faces/Anno/list_landmarks_celeba.txt", "faces/Label/img_celeba/000004.png"
# What is done to the workplace before the command of an entry is given; nothing where it is not named.
PREPARED: dict[str, Callable[[], object]] = {
    "An unknown key in a YAML file": lambda: write("mine.yaml", "seed: 1\nschedule:\n  bach: 8\n"),
    "A key given twice in a YAML file": lambda: write("mine.yaml", "seed: 1\nlog: {every: 2}\nseed: 2\n"),
    "The output folder holds something else": lambda: write("thesis/chapter.tex", "text"),
    "A range in a grid search": lambda: write("space.yaml", SPACE.replace("choice", "uniform")),
    "A sweep over the seed": lambda: write("space.yaml", "metric: psnr\nspace:\n  seed: {choice: [1, 2]}\n"),
    "An annotation file is missing": lambda: Path(LISTS).unlink(),
    "A damaged line of an annotation file": lambda: edit(LISTS, "000002.jpg ", "000002.jpg x"),
    "A label outside of the classes": lambda: draw(LABEL, np.full((440, 360), 19, np.uint8)),
    "Too many pictures cannot be used": damage_pictures,
    "Pictures beside folders of splits": lambda: pictures("mine/train/a.png", "mine/b.png"),
    "The data set lacks annotation": without_annotation,
    "Tars of another program": tars,
    "Files of a sample lie apart in a tar": unsorted_tars,
    "A shard has another size": lambda: os.truncate("packed/drawn/train-000000.tar", 5000),
    "A shard has other content": lambda: change_byte("packed/drawn/train-000001.tar", 5000),
    "A hole of another shape than the picture": lambda: draw("hole.png", np.full((100, 90), 255, np.uint8)),
    "A hole whose meaning is in doubt": lambda: draw("hole.png", np.full((440, 360), 1, np.uint8)),
    "A photograph of 16 bits": lambda: draw("photo.png", np.zeros((64, 64, 3), np.uint16)),
    "The disk is full": lambda: Path("runs/first/.report.html").symlink_to("/dev/full"),
    "A file stands where a folder should": lambda: write("completed", "text"),
    "Continued with other data": other_data,
    "The data set of an audited run was moved": moved_data,
    "A damaged checkpoint": lambda: change_byte(f"{CHECKPOINT}/generator.safetensors", -5),
    "A checkpoint of a newer program": lambda: rewrite_state(Path(CHECKPOINT), lambda state: state.update(format=99)),
    "An exported model was changed": exported,
    "No Ray cluster answers": lambda: write("space.yaml", SPACE),
}
MEANWHILE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "Another start trains into the run folder": other_start,
    "The port is in use": listener,
    "Interrupted": interruption,
}


def message_of(
    title: str, line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, int]:
    """(what the command of an entry says from its own name on, its exit code), in the current folder."""
    PREPARED.get(title, lambda: None)()
    variables, _, words = line.partition("collagan ")
    for name, _, value in (item.partition("=") for item in variables.split()):
        monkeypatch.setenv(name, value)
    capfd.readouterr()
    if title == "The disk is full":
        small = f"mkdir small && mount -t tmpfs -o size=200k none small && {sys.executable} -m collagan_dist {words}"
        code = subprocess.run(private_mounts(small)).returncode
    else:
        monkeypatch.setattr(sys, "argv", ["collagan", *shlex.split(words)])  # which an interrupted run repeats
        with MEANWHILE.get(title, nullcontext)():
            code = command(words)
    said = capfd.readouterr().err
    return said[max(said.rfind("\ncollagan: "), said.rfind(f"\ncollagan {words.split()[0]}: "), -1) + 1 :], code


def pattern(text: str) -> str:
    """The expression of a message of the page: the page breaks lines anywhere, and … stands for what varies."""
    return r"\s+".join(".*?".join(map(re.escape, word.split("…"))) for word in text.split())


@pytest.mark.parametrize("title", ENTRIES)
def test_an_error_of_the_page(workplace, tmp_path, monkeypatch, capfd, title):
    line, message, code = ENTRIES[title]
    monkeypatch.chdir(shutil.copytree(workplace, tmp_path / "here"))
    said, found = message_of(title, line, capfd, monkeypatch)
    assert found == code and re.fullmatch(pattern(message), said.strip(), re.DOTALL), said


def test_the_page_has_every_kind_of_error():
    assert len(ENTRIES) == PAGE.count("\n### ") >= 25 and {*PREPARED, *MEANWHILE} <= set(ENTRIES)
    assert {code for _, _, code in ENTRIES.values()} == {2, 3, 4, 5, 6, 75}

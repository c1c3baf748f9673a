"""`collagan label` as a job: what it keeps, refuses and names, and that a continued run writes the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.commands.main import main
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.label_check import check_label_maps
from collagan_dist.inference.labelling import find_photographs, write_label_maps
from collagan_dist.inference.parser_onnx import OnnxParser, read_class_map
from collagan_dist.inference.parsers import RunParser, open_parser
from collagan_dist.training.loop import train
from collagan_dist.types import CLASSES, SCORED_CLASSES, World
from tests.training.onnx_networks import class_map, colour_network
from tests.training.small import small


@pytest.fixture(scope="session")
def parser_run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small M_s that has learned a little."""
    run = tmp_path_factory.mktemp("parser") / "run"
    changes = {"model__tasks": ["segmentation"], "hole": {"kind": "none"}, "schedule__steps": 60, "schedule__batch": 8,
               "schedule__adv_from": 60, "model__noise": 0.0, "model__widths": {"generator": 8, "discriminator": 4},
               "optim__generator": {"lr": 0.005}, "checkpoint__every": 30}  # fmt: skip
    train(small(shards.folder, **changes), run, World())
    return run


@pytest.fixture
def unlabelled(copy_of_drawn: Path) -> Path:
    """The drawn faces without their label maps."""
    shutil.rmtree(copy_of_drawn / "Label")
    return copy_of_drawn


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


class Recorded:
    """A real parser that keeps what it was shown."""

    def __init__(self, parser: RunParser) -> None:
        self._parser, self.batches = parser, list[np.ndarray]()
        self.identity, self.size, self.views = parser.identity, parser.size, parser.views

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        self.batches.append(pixels_BHW3.copy())
        return self._parser(pixels_BHW3)


def test_a_continued_run_shows_the_same_slots_and_writes_the_same_bytes(
    unlabelled: Path, parser_run: Path, tmp_path: Path
) -> None:
    whole, parts = (find_photographs(unlabelled, out=tmp_path / name) for name in ("whole", "parts"))
    first = Recorded(RunParser(parser_run))
    assert write_label_maps(first, whole, 8).written == 60

    def stop(done: int, total: int) -> None:
        if done >= 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_label_maps(RunParser(parser_run), parts, 8, stop)
    for number in (1, 5, 30):  # maps that somebody removed, and what a killed process left
        parts.path(parts.samples[number]).unlink(missing_ok=True)
    (parts.maps / ".000002.png.99.partial").write_bytes(b"half")
    before = contents(parts.maps)
    assert 0 < len(before) < 60
    second = Recorded(RunParser(parser_run))
    done = write_label_maps(second, parts, 8)
    assert done.existing == len(before) and done.written == 60 - len(before)
    assert contents(parts.maps) == contents(whole.maps)
    assert {p.name for p in parts.maps.iterdir()} - set(contents(whole.maps)) == {".label.json"}
    slots = {part.tobytes(): i for batch in first.batches for i, part in enumerate(batch)}
    assert {batch.shape for batch in second.batches} == {first.batches[0].shape}
    assert all(not p.any() or slots[p.tobytes()] == i for batch in second.batches for i, p in enumerate(batch))
    assert write_label_maps(second, parts, 8).existing == 60


def test_maps_have_the_size_of_their_pictures_and_the_note_names_the_model(unlabelled: Path, parser_run: Path) -> None:
    photos = find_photographs(unlabelled)
    write_label_maps(open_parser(parser_run), photos, 16)
    assert photos.maps == unlabelled / "Label/img_celeba"
    for path in (unlabelled / "Img/img_celeba").iterdir():
        labels = cv2.imread(str(photos.maps / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == cv2.imread(str(path)).shape[:2]
        assert labels.max() < len(CLASSES) and (labels > 0).any()
    note = json.loads((photos.maps / ".label.json").read_text())
    assert note["model"] == str(parser_run) and len(note["sha256"]) == 64 and note["dataset"] == "celeba"


def test_maps_of_another_origin_are_refused(unlabelled: Path, drawn: Path, parser_run: Path, tmp_path: Path) -> None:
    parser = open_parser(parser_run)
    with pytest.raises(DataError, match=r"that `collagan label` did not make; give another --out"):
        write_label_maps(parser, find_photographs(drawn), 8)
    photos = find_photographs(unlabelled)
    write_label_maps(parser, photos, 8)
    network = colour_network(tmp_path / "n.onnx", shape=(1, 32, 32))
    class_map(network)
    with pytest.raises(DataError, match=r"another model or class map .*run.* give another --out, or remove"):
        write_label_maps(open_parser(network), photos, 8)
    write_label_maps(open_parser(network), find_photographs(unlabelled, out=tmp_path / "out"), 8)
    class_map(network, sides="subject")
    with pytest.raises(DataError, match="another model or class map"):
        write_label_maps(open_parser(network), find_photographs(unlabelled, out=tmp_path / "out"), 8)


def test_unusable_pictures_are_named_and_left_to_pack(
    unlabelled: Path, parser_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = unlabelled / "Img/img_celeba"
    (pictures / "000007.jpg").write_bytes((pictures / "000007.jpg").read_bytes()[:2000])
    (pictures / "000009.jpg").unlink()
    command = ["label", str(unlabelled), "--model", str(parser_run)]
    with pytest.raises(SystemExit) as stop:
        main(command)
    out = capsys.readouterr().out
    assert not stop.value.code and "no label map for 000009: cannot be read" in out
    assert "58 label maps; next: collagan pack shards/celeba.yaml" in out and "--set labels=Label/img_celeba" in out
    maps = unlabelled / "Label/img_celeba"
    named = [json.loads(line) for line in (maps / "unlabelled.jsonl").read_text().splitlines()]
    assert [line["key"] for line in named] == ["000007", "000009"] and "damaged JPEG" in named[0]["reason"]
    shutil.copy(pictures / "000008.jpg", pictures / "000007.jpg")
    shutil.copy(pictures / "000008.jpg", pictures / "000009.jpg")
    with pytest.raises(SystemExit):
        main(command)
    assert "60 label maps (58 were there)" in capsys.readouterr().out and not (maps / "unlabelled.jsonl").exists()
    for path in pictures.iterdir():
        path.write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main([*command, "--out", str(unlabelled / "none")])
    assert stop.value.code == 3
    assert "none of 60 pictures could be labelled; 000001: is an empty file" in capsys.readouterr().err


def test_check_is_the_dice_of_what_would_be_written(drawn: Path, parser_run: Path, tmp_path: Path) -> None:
    """Counted once more here, from files, with numpy; and 1 against its own maps."""
    parser = open_parser(parser_run)
    exact, own = find_photographs(drawn), find_photographs(drawn, out=tmp_path / "own")
    found = check_label_maps(parser, exact, 16)
    write_label_maps(parser, own, 16)
    assert found.pictures == 60 and not found.without_map
    pairs = [[cv2.imread(str(p.path(s)), cv2.IMREAD_UNCHANGED).ravel() for s in p.samples] for p in (own, exact)]
    mine, true = (np.concatenate(p) for p in pairs)
    expected = {
        name: 2 * ((mine == c) & (true == c)).sum() / ((mine == c).sum() + (true == c).sum())
        for c, name in enumerate(CLASSES)
    }
    mean = np.mean([expected[name] for name in SCORED_CLASSES])
    assert found.dice == pytest.approx(expected | {"mean": mean})
    assert found.true["hair"] == pytest.approx((true == 10).mean()) and found.found["face"] == pytest.approx(
        (mine == 1).mean()
    )
    before = contents(own.maps)
    again = check_label_maps(parser, own, 16)
    assert set(again.dice.values()) == {1.0} and contents(own.maps) == before
    own.path(own.samples[3]).unlink()
    assert (check_label_maps(parser, own, 16).pictures, check_label_maps(parser, own, 16).without_map) == (59, 1)
    with pytest.raises(DataError, match="holds no label map of these pictures"):
        check_label_maps(parser, find_photographs(drawn, out=tmp_path / "nothing"), 16)
    assert not (tmp_path / "nothing").exists()


def test_models_that_do_not_segment_are_refused(shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder, model__tasks=["landmarks"], schedule__steps=1), tmp_path / "run", World())
    with pytest.raises(
        ConfigError, match=r"is M_d, which does not segment; train one that does: collagan train parser"
    ):
        open_parser(tmp_path / "run")
    with pytest.raises(ConfigError, match="no such folder or file"):
        open_parser(tmp_path / "none")
    (tmp_path / "text.onnx").write_text("text")
    class_map(tmp_path / "text.onnx")
    with pytest.raises(ConfigError, match="onnxruntime cannot load it"):
        open_parser(tmp_path / "text.onnx")


WRONG_MAPS = {
    "unknown class": ("classes: {left_brow: [1]}\nsides: picture", r"map.yaml:1: .*no class 'left_brow'; did you mean left_eyebrow\?"),
    "index twice": ("classes: {face: [1, 2], hair: [2]}\nsides: picture", "each at most once"),
    "negative": ("classes: {face: [-1]}\nsides: picture", "greater than or equal to 0"),
    "no sides": ("classes: {face: [1]}", "sides is missing"),
    "unknown key": ("classes: {face: [1]}\nsides: picture\ninput: {sise: [8, 8]}", r"map.yaml:3: .*did you mean size\?"),
    "std 0": ("classes: {face: [1]}\nsides: picture\ninput: {std: [1, 0, 1]}", "must be above 0"),
    "range": ("classes: {face: [1]}\nsides: picture\ninput: {range: 2}", "input.range"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_MAPS)
def test_wrong_class_maps(tmp_path: Path, name: str) -> None:
    text, message = WRONG_MAPS[name]
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_class_map(tmp_path / "map.yaml")


WRONG_FITS = {
    "outside": ({}, "input: {size: [32, 32]}", {"hair": [11]}, r"names index 11, .* has 11 channels \(0..10"),
    "no size": ({}, "", {}, r"pictures of any size; set input.size"),
    "other size": ({"shape": (1, 32, 32)}, "input: {size: [64, 64]}", {}, r"is \[64, 64\], .* takes \[32, 32\]"),
    "layout": ({"shape": (1, 32, 32)}, "input: {layout: NHWC}", {}, "input.layout is NHWC"),
    "output": ({}, "input: {size: [32, 32]}\noutput: {name: parts}", {}, "output.name is 'parts', .* has scores"),
    "number": ({}, "input: {size: [32, 32]}\noutput: {name: 4}", {}, "output.name is 4"),
}


@pytest.mark.parametrize("name", WRONG_FITS)
def test_class_maps_that_do_not_fit_their_network(tmp_path: Path, name: str) -> None:
    how, text, classes, message = WRONG_FITS[name]
    network = colour_network(tmp_path / "n.onnx", **how)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        OnnxParser(network, class_map(network, text, **classes))(np.zeros((2, 32, 32, 3), np.uint8))  # type: ignore[arg-type]


def test_the_documented_class_map_is_one(tmp_path: Path) -> None:
    from tests.conftest import ROOT

    block = (ROOT / "docs/label.md").read_text().split("```yaml")[1].split("```")[0]
    (tmp_path / "map.yaml").write_text(block)
    assert read_class_map(tmp_path / "map.yaml")[0].sides == "subject"

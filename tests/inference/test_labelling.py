import json
import shutil

import cv2
import numpy as np
import pytest

from collagan_dist.errors import DataError
from collagan_dist.inference.labelling import find_photographs, write_label_maps
from collagan_dist.inference.parsers import RunParser, open_parser
from collagan_dist.types import CLASSES
from tests.commands.conftest import call
from tests.inference.onnx_networks import class_map, colour_network
from tests.inference.photographs import contents


class RecordedParser(RunParser):
    def __call__(self, pixels_BHW3):
        self.batches = [*getattr(self, "batches", []), pixels_BHW3.copy()]
        return super().__call__(pixels_BHW3)


def test_a_resumed_run_uses_the_same_slots_and_writes_the_same_bytes(unlabelled, parser_run, tmp_path):
    complete, parts = (find_photographs(unlabelled, out=tmp_path / name) for name in ("complete", "parts"))
    first = RecordedParser(parser_run)
    assert write_label_maps(first, complete, 8).written == 60

    def stop(done, total):
        if done >= 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_label_maps(RunParser(parser_run), parts, 8, stop)
    for number in (1, 5, 30):  # maps that somebody removed, and what a killed process left
        parts.path(list(parts.samples)[number]).unlink(missing_ok=True)
    (parts.maps / ".000002.png.99.partial").write_bytes(b"half")
    before = contents(parts.maps)
    assert 0 < len(before) < 60
    second = RecordedParser(parser_run)
    done = write_label_maps(second, parts, 8)
    assert done.existing == len(before) and done.written == 60 - len(before)
    assert contents(parts.maps) == contents(complete.maps)
    assert {p.name for p in parts.maps.iterdir()} - set(contents(complete.maps)) == {".label.json"}
    slots = {part.tobytes(): i for batch in first.batches for i, part in enumerate(batch)}
    assert {batch.shape for batch in second.batches} == {first.batches[0].shape}
    assert all(not p.any() or slots[p.tobytes()] == i for batch in second.batches for i, p in enumerate(batch))
    assert write_label_maps(second, parts, 8).existing == 60


def test_maps_have_the_size_of_their_pictures_and_the_origin_file_names_the_model(unlabelled, parser_run):
    photos = find_photographs(unlabelled)
    write_label_maps(open_parser(parser_run), photos, 16)
    assert photos.maps == unlabelled / "Label/img_celeba"
    for path in (unlabelled / "Img/img_celeba").iterdir():
        labels = cv2.imread(str(photos.maps / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == cv2.imread(str(path)).shape[:2]
        assert labels.max() < len(CLASSES) and (labels > 0).any()
    note = json.loads((photos.maps / ".label.json").read_text())
    assert note["model"] == str(parser_run) and len(note["sha256"]) == 64 and note["dataset"] == "celeba"


def test_maps_of_another_origin_are_refused(unlabelled, drawn, parser_run, tmp_path):
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


def test_unusable_pictures_are_named_and_left_to_pack(unlabelled, parser_run, capsys):
    pictures = unlabelled / "Img/img_celeba"
    (pictures / "000007.jpg").write_bytes((pictures / "000007.jpg").read_bytes()[:2000])
    (pictures / "000009.jpg").unlink()
    command = ["label", unlabelled, "--model", parser_run]
    assert call(*command) == 0
    out = capsys.readouterr().out
    assert "no label map for 000009: cannot be read" in out and "58 label maps; next: " in out
    maps = unlabelled / "Label/img_celeba"
    named = [json.loads(line) for line in (maps / "unlabelled.jsonl").read_text().splitlines()]
    assert [line["key"] for line in named] == ["000007", "000009"] and "damaged JPEG" in named[0]["reason"]
    shutil.copy(pictures / "000008.jpg", pictures / "000007.jpg")
    shutil.copy(pictures / "000008.jpg", pictures / "000009.jpg")
    assert call(*command) == 0
    assert "60 label maps (58 were there)" in capsys.readouterr().out and not (maps / "unlabelled.jsonl").exists()
    for path in pictures.iterdir():
        path.write_bytes(b"")
    assert call(*command, "--out", unlabelled / "none") == 3
    assert "none of 60 pictures could be labelled; 000001: is an empty file" in capsys.readouterr().err

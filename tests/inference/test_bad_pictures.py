"""Pictures that cannot be used: `pack`, `label` and `complete` read by one reader, so they name them alike and do the rest."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from collagan_dist.data.packing.pack import pack
from collagan_dist.inference.complete import CompleteOptions, complete
from collagan_dist.inference.labelling import find_photographs, write_label_maps
from collagan_dist.inference.parsers import open_parser
from tests.data.packed import recipe


def saved(form, mode="RGB", size=(360, 440), **options):
    return lambda path: Image.new(mode, size, 99).save(path, form, **options)


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


BAD = {
    "is GIF, which is not read": saved("GIF"),
    "wrong mode CMYK": saved("JPEG", "CMYK"),
    "with transparency": saved("PNG", "RGBA"),
    "several frames": lambda path: Image.new("RGB", (99, 99)).save(
        path, "WEBP", save_all=True, append_images=[Image.new("RGB", (99, 99), "red")]
    ),
    "damaged JPEG": lambda path: os.truncate(path, 2000),
    "is an empty file": lambda path: os.truncate(path, 0),
    "not a picture": lambda path: path.write_text("text"),
    "smaller than 32x32": saved("PNG", size=(31, 400)),
    "decompression bomb": saved("PNG", "L", (9000, 9000)),
    "is a FIFO": replaced_by(os.mkfifo),
    "No such file": replaced_by(lambda path: path.symlink_to("nowhere")),
}


@pytest.fixture
def damaged(copy_of_drawn):
    """The drawn faces, eleven of them damaged; the reason by file."""
    shown = {}
    for number, (reason, damage) in enumerate(BAD.items(), 1):
        path = copy_of_drawn / f"Img/img_celeba/{number:06d}.jpg"
        damage(path)
        shown[path.stem] = reason
    return copy_of_drawn, shown


def test_all_commands_name_the_same_pictures_for_the_same_reasons(damaged, trained_run, parser_run, tmp_path):
    root, expected = damaged
    manifest = pack(recipe(root, tmp_path / "packed"), workers=1, max_bad=1)
    lines = map(json.loads, (tmp_path / "packed/quarantine.jsonl").read_text().splitlines())
    by_command = {
        "pack": {line["key"]: line["reason"] for line in lines},
        "label": dict(
            write_label_maps(
                open_parser(parser_run), find_photographs(root, out=tmp_path / "maps"), 16, max_bad=1
            ).unusable
        ),
        "complete": {
            Path(name).stem: reason
            for name, reason in complete(
                trained_run, root / "Img/img_celeba", tmp_path / "out", None, CompleteOptions(max_bad=1)
            ).left_out
        },
    }
    assert manifest.quarantined == len(expected)
    for command, found in by_command.items():
        assert found.keys() == expected.keys(), command
        assert all(reason in found[key] for key, reason in expected.items()), (command, found)

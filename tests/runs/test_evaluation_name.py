import json

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.runs.evaluation_name import describe_variant, evaluation_settings, evaluation_variant


def test_other_data_and_other_settings_have_words_in_the_name(finished):
    own = evaluation_settings(load_config(str(finished / "config.yaml")))
    manifest = json.loads((finished / "data.json").read_text())["manifest"]
    assert evaluation_variant(finished, own, manifest) == evaluation_variant(finished, own) == ""
    # Positions have a word of their own.
    assert evaluation_variant(finished, own | {"positions": "fixed"}, manifest) == ""
    data = evaluation_variant(finished, own, "0123456789abcdef")
    assert data == "-data-01234567"
    found = {evaluation_variant(finished, own | {"readout": "argmax", "samples": n}, manifest) for n in range(1, 4)}
    assert len(found) == 3 and all(name.startswith("-settings-") for name in found)
    assert evaluation_variant(finished, own | {"samples": 1}, "0123456789") == data + evaluation_variant(
        finished, own | {"samples": 1}
    )


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("test-block", ""),
        ("test-O1-fixed-blended", ""),
        ("test-block-data-0123abcd", "data 0123abcd"),
        ("test-O1-fixed-blended-settings-0123abcd", "settings 0123abcd"),
        ("test-block-data-0123abcd-settings-89ef0123", "data 0123abcd, settings 89ef0123"),
    ],
)
def test_a_name_says_what_is_other(stem, words):
    assert describe_variant(stem) == words


def test_a_folder_without_records_has_nothing_of_its_own(tmp_path):
    (tmp_path / "data.json").write_text("[" * 100_000)
    (tmp_path / "config.yaml").write_text("model: [")
    assert evaluation_variant(tmp_path, {"samples": 1}, "0123456789") == ""

import json

import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.report import tables
from collagan_dist.report.run_data import read_run
from tests.report.page_reader import read_report


def test_a_trained_run(run):
    found = read_run(run)
    assert found.tasks == ("inpainting", "segmentation", "landmarks")
    assert (found.steps_done, found.steps_planned) == (12, 12)
    assert [point.step for point in found.checkpoints] == [4, 8, 12]
    for point in found.checkpoints:
        files = (run / f"checkpoints/step-{point.step:08d}").iterdir()
        assert point.complete and point.bytes == sum(file.stat().st_size for file in files)
    assert [step for step, _ in found.grids] == [4, 8, 12]
    assert [(item.hole, item.blend) for item in found.evaluations] == [("block", ""), ("O1", "poisson"), ("O1", "")]
    assert found.evaluation.values["psnr"] == json.loads((run / "metrics.json").read_text())["psnr"]


def test_without_metrics_json_the_headline_has_the_holes_of_training(altered):
    path = altered()
    (path / "metrics.json").unlink()
    assert read_run(path).evaluations[0].hole == "block"
    for file in (path / "evaluation").glob("*.json"):
        file.unlink()
    headline = read_run(path).evaluation
    assert (headline.split, headline.step) == ("valid", 12)


def test_numbers_that_cannot_be_drawn_are_left_out_and_said(altered):
    path = altered(psnr=1e300, psnr_hole=float("nan"), ssim=10**400, step=12)
    run = read_run(path)
    assert run.evaluation.step == 12 and not {"psnr", "psnr_hole", "ssim"} & run.evaluation.values.keys()
    (note,) = run.log.notes
    assert note.startswith("3 number(s) of metrics.json are not finite") and note in str(tables.events_table(run))


def test_planned_steps_from_epochs(altered):
    path = altered(config={"schedule.steps": None, "schedule.epochs": 3})
    assert read_run(path).steps_planned == 3 * 48 / 4


def test_a_checkpoint_without_its_manifest_is_incomplete(altered):
    path = altered()
    (path / "checkpoints/step-00000008/manifest.json").unlink()
    assert [point.complete for point in read_run(path).checkpoints] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("world.json", "{", "not readable as JSON"),
        ("data.json", "[]", "expected a JSON object"),
        ("grids/columns.json", "[", "is no JSON"),
        ("metrics.json", "1", "expected a JSON object"),
    ],
)
def test_a_damaged_file_is_named(altered, name, content, message):
    path = altered()
    (path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_run(path)
    assert str(path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [("model: [", "not YAML"), ("- 1", "a mapping"), ("[" * 20_000, "64 deep")]
)
def test_a_refused_configuration_is_named(altered, content, message):
    """Exit 2, as in every command; 20 kB of brackets took the parser 90 seconds."""
    path = altered()
    (path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_run(path)
    assert str(path / "config.yaml") in str(caught.value)


def test_settings_without_effect_are_warned_of(altered):
    """Settings of another version are shown, not judged."""
    path = altered(config={"schedule.adv_from": 12})
    (warning,) = read_run(path).warnings
    assert "it is no GAN" in warning and warning.split(";")[0] in read_report(path).text
    assert read_run(altered("share", config={"schedule.adv_from": 0.9})).warnings == []
    assert read_run(altered("other", config={"schedule.adv_from": "later"})).warnings == []

"""What of an evaluation is found when a number of it was changed."""

import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from collagan_dist.audit.evaluations import audit_evaluation, beyond, evaluation_files, ranks_of_evaluation
from collagan_dist.audit.ranks import Resources
from collagan_dist.audit.record import RunRecord
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.inference.evaluate import batches_of
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.reproduce.child_process import collagan_command, run_command
from collagan_dist.types import World
from tests.audit.test_stretches import contents


@pytest.fixture
def audited(shards, tmp_path):
    def audit(run: Path, name: str = "test-O1", manifest=shards, ranks: int = 1, threads: int | None = None):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        given = Resources(manifest, (ranks,), threads, tmp_path / "work")
        (found,) = audit_evaluation(RunRecord(run), run / f"evaluation/{name}.json", given, Random(0))
        return found

    return audit


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_all_rows(path: Path, change) -> None:
    with np.load(path) as archive:
        rows = {key: archive[key] for key in archive.files}
    np.savez_compressed(path, **{name: change(name, values) for name, values in rows.items()})


def edit_rows(path: Path, name: str, change) -> None:
    edit_all_rows(path, lambda one, values: change(values) if one == name else values)


@pytest.mark.parametrize("name", ["test-O1", "test-block"])
def test_an_evaluation_is_equal(audited, run, name):
    before = contents(run)
    assert [path.stem for path in evaluation_files(RunRecord(run))] == ["test-O1", "test-block"]
    one = audited(run, name)
    assert (one.verdict, one.wrong, one.compared) == ("equal", (), "4 of 4 samples")
    assert contents(run) == before


def test_an_edited_metric_is_named(audited, run):
    edit(run / "evaluation/test-O1.json", lambda found: found["dice"].update(nose=0.99))
    one = audited(run)
    assert one.verdict == "differs" and "test-O1.json: dice.nose: 0.99, by its samples 0." in one.wrong[0]


def test_rows_of_another_shape_or_kind_are_damage(audited, run):
    for change in (lambda rows: np.stack([rows, rows], axis=1), lambda rows: rows.astype(str)):
        edit_rows(run / "evaluation/test-O1.npz", "psnr", change)
        one = audited(run)
        assert one.verdict == "damaged" and one.wrong[0].endswith("test-O1.npz: has no numbers of psnr")


def test_rows_that_the_model_does_not_give_are_named(audited, run):
    """Rows and metrics together, as somebody would who knows both."""

    def better(values):
        return values + 1.0

    edit_rows(run / "evaluation/test-O1.npz", "psnr", better)
    edit(run / "evaluation/test-O1.json", lambda found: found.update(psnr=found["psnr"] + 1.0))
    one = audited(run)
    assert one.verdict == "differs" and len(one.wrong) == 2 and "test-O1.npz: sample 0: psnr: " in one.wrong[1]
    assert "the difference is larger than roundings make it" in one.wrong[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda name, rows: rows[:3], "has 3 samples, where 4 were measured", id="cut"),
        pytest.param(
            lambda name, rows: rows - 4 if name == "ids" else rows, "are not different ones of 0 to 3", id="negative"
        ),
        pytest.param(lambda name, rows: rows[[0, 1, 1, 1]], "are not different ones of 0 to 3", id="repeated"),
        pytest.param(lambda name, rows: rows[:0], "has no numbers of samples", id="none"),
    ],
)
def test_rows_of_other_samples_than_the_first_of_the_split_are_named(audited, run, change, said):
    edit_all_rows(run / "evaluation/test-O1.npz", change)
    one = audited(run)
    assert one.verdict == "damaged" and "test-O1.npz: " in one.wrong[0] and said in one.wrong[0]


def test_a_sample_that_was_cut_from_rows_and_count_is_missed(audited, run):
    edit_all_rows(run / "evaluation/test-O1.npz", lambda name, rows: rows[1:])
    edit(run / "evaluation/test-O1.json", lambda found: found.update(samples=3))
    assert "lacks 1 of 4 samples, where 0 were damaged" in audited(run).wrong[0]
    # One that is said to have been damaged can be read here.
    edit(run / "evaluation/test-O1.json", lambda found: found.update(damaged=1))
    one = audited(run)
    assert one.verdict == "differs" and any("sample 0: psnr: nan, measured " in text for text in one.wrong)


@pytest.mark.parametrize("change", [{"blend": "x"}, {"hole": "x"}, {"split": "x"}, {"step": -1}])
def test_an_evaluation_of_what_does_not_exist_is_damaged(audited, run, change):
    edit(run / "evaluation/test-O1.json", lambda found: found.update(change))
    assert audited(run).verdict == "damaged"


def test_roundings_of_rows_are_within_bounds(audited, run):
    """Where another machine measured them, which is named; on the recorded one bits are promised."""
    path = run / "evaluation/test-O1.json"
    edit_rows(path.with_suffix(".npz"), "psnr", lambda values: values * (1 + 1e-7))
    one = audited(run)
    assert (one.verdict, one.reasons) == ("differs", ())
    assert "bits differ, although all that is recorded is equal; the difference is no larger than" in one.wrong[0]
    edit(path, lambda found: found["machine"].update(name="another processor"))
    one = audited(run)
    assert (one.verdict, one.wrong) == ("within", ()) and "name: another processor -> " in one.reasons[0]
    edit(path, lambda found: found.pop("machine"))
    one = audited(run)
    assert (one.verdict, one.reasons) == ("within", ("the evaluation does not say what computed it",))


def test_an_evaluation_on_other_ranks_and_threads(audited, run):
    """By default the first is measured on another number of ranks, too; a batch of a rank of 2 has half of the 4 samples."""
    path = run / "evaluation/test-O1.json"
    assert ranks_of_evaluation(path, other=True) == (1, 2) and ranks_of_evaluation(path, other=False) == (1,)
    before, one = torch.get_num_threads(), audited(run, ranks=2, threads=3)
    torch.set_num_threads(before)
    assert one.verdict in ("equal", "within") and (one.how, one.compared) == ("2 ranks, 3 threads", "2 of 4 samples")
    threads = json.loads(path.read_text())["machine"]["threads"]
    assert one.reasons == ("ranks: 1 -> 2", f"threads: {threads} -> 3")
    edit_rows(path.with_suffix(".npz"), "psnr", lambda values: values + 1.0)
    edit(path, lambda found: found.update(psnr=found["psnr"] + 1.0))
    assert audited(run, ranks=2).verdict == "differs"


@pytest.mark.parametrize(("points", "named"), [(1, False), (2, True)])
def test_one_landmark_of_twenty_may_jump(audited, run, points, named):
    def jump(rows):
        rows.reshape(-1)[:points] += 3.0
        return rows

    edit_rows(run / "evaluation/test-block.npz", "landmark_error", jump)
    edit(run / "evaluation/test-block.json", lambda found: found["machine"].update(name="another processor"))
    found = [text for text in audited(run, "test-block").wrong if "npz: sample 0: landmark_error: " in text]
    assert bool(found) == named


def test_a_jump_is_counted_and_other_rows_have_a_size():
    now = np.arange(1.0, 41.0).reshape(8, 5)
    then, nudged = now.copy(), now.copy()
    then[:3, 0] += 7.0
    assert beyond("landmark_error", then, now, nudged).sum() == 3
    nudged[7, 4] += 9.0
    assert not beyond("landmark_error_hole", then, now, nudged).any()
    assert beyond("ssim", now + 271.0, now, nudged).sum() == 40 and not beyond("ssim", then, now, nudged).any()


def test_what_cannot_be_compared_is_said(audited, run, shards, tmp_path):
    other = read_manifest(shutil.copytree(shards.folder, tmp_path / "other"))
    edit(tmp_path / "other/manifest.json", lambda found: found.update(dataset="other"))
    other = read_manifest(tmp_path / "other")
    assert "another data set" in audited(run, manifest=other).notes[0]
    (run / "evaluation/test-block.npz").write_bytes(b"PK")
    assert audited(run, "test-block").verdict == "damaged"
    shutil.rmtree(run / "checkpoints/step-00000009")
    one = audited(run)
    assert one.verdict == "not comparable" and "its checkpoint, of step 9, is not kept" in one.notes[0]


def test_an_evaluation_in_another_precision_is_measured_in_it(audited, run):
    ((metrics, _),) = score(run, World(), ScoreRequest(holes=("O1",)), sets=["runtime.precision=bf16"])
    one = audited(run)
    assert metrics["precision"] == "bf16" and (one.verdict, one.wrong) == ("equal", ())


BATCH_NORM = "evaluate.batch_norm=batch"


def test_by_statistics_of_the_batch_the_number_of_ranks_is_needed(audited, run):
    ((metrics, path),) = score(run, World(), ScoreRequest(holes=("O1",)), sets=[BATCH_NORM])
    assert metrics["machine"]["ranks"] == 1 and audited(run, path.stem).verdict == "equal"
    assert ranks_of_evaluation(path, other=True) == (1,)
    assert "was measured on 1 rank: the number of ranks decides" in audited(run, path.stem, ranks=2).notes[0]
    edit(path, lambda found: found.pop("machine"))
    one = audited(run, path.stem)
    assert one.verdict == "not comparable" and "on how many ranks" in one.notes[0]
    edit(path, lambda found: found.update(ranks=1))  # as an older version wrote it
    assert audited(run, path.stem).verdict == "equal"


def test_every_rank_measures_its_own_batches():
    assert [batch.tolist() for batch in batches_of(5, 2)] == [[0, 2, 4], [1, 3]]
    assert [len(batch) for batch in batches_of(70, 1)] == [32, 32, 6] and len(batches_of(3, 8)) == 3


@pytest.mark.full  # a start of torchrun
def test_by_statistics_of_the_batch_an_evaluation_of_two_ranks_is_equal(audited, run, tmp_path):
    arguments = ["evaluate", str(run), "--hole", "O1", "--set", BATCH_NORM]
    assert run_command([*collagan_command(2), *arguments], tmp_path / "log", False, lambda line: None).code == 0
    (path,) = run.glob("evaluation/test-O1-settings-*.json")
    one = audited(run, path.stem, ranks=2)
    assert (one.verdict, one.wrong, one.compared) == ("equal", (), "2 of 4 samples")

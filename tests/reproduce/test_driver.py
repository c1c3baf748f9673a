import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from collagan_dist.data.shards import remote
from collagan_dist.errors import CheckpointError, ConfigError, DataError
from collagan_dist.reproduce.driver import describe, prepare
from collagan_dist.reproduce.plan import ReproduceOptions
from tests.commands.conftest import call
from tests.reproduce.small import TABLE_3, content, ended, events, start, two_models, words, write_small


def test_tables_hold_the_evaluations_of_trained_runs(undisturbed):
    files = content(undisturbed)
    assert files["table3.json"]["rows"] == ["M_d", "M_id"]
    for name in ("M_d", "M_id"):
        run = undisturbed / "runs" / name
        assert events(run) == ["start"] and (run / "checkpoints/step-00000003").is_dir()
        metrics = json.loads((run / "evaluation/test-block.json").read_text())
        cell = files["table3.json"]["cells"][name]["average"]
        assert cell["ours"] == metrics["landmark_error"]["mean"] > 0
        assert cell["se"] == metrics["se"]["landmark_error"]["mean"]
    verdicts = {one["claim"]: one["verdict"] for one in files["claims.json"]["claims"]}
    assert verdicts["Completion helps landmarks: M_id beats M_d"] in ("holds", "does not", "undecided")
    assert (undisturbed / "report.html").stat().st_size > 5000


def test_stopped_and_continued(undisturbed, shards, tmp_path):
    """TERM while the second model trains: the same command continues to the same numbers."""
    out = tmp_path / "out"
    command = words(write_small(tmp_path), shards.folder, out, *TABLE_3)
    shutil.copytree(undisturbed / "runs/M_id", out / "runs/M_id")
    process = start(*command)
    deadline = time.monotonic() + 120
    while not (out / "runs/M_d/lease").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = ended(process, 75)
    assert "the same command continues" in err and "Traceback" not in err and not (out / "table3.json").exists()
    _, err = ended(start(*command))
    assert content(out) == content(undisturbed)
    assert err.count("done already") == 1 and events(out / "runs/M_id") == ["start"]


def test_a_failed_run_is_named_and_the_others_go_on(undisturbed, shards, tmp_path, monkeypatch, capsys):
    """A file stands where the run folder of M_id, the first, would be.

    The last checkpoint of M_d is damaged, which its evaluation finds: it is trained again to the same network.
    """
    two_models(monkeypatch)
    out = tmp_path / "out"
    shutil.copytree(undisturbed / "runs/M_d", out / "runs/M_d", ignore=shutil.ignore_patterns("evaluation"))
    (out / "runs/M_id").write_text("in the way")
    weights = out / "runs/M_d/checkpoints/step-00000003/generator.safetensors"
    undamaged = weights.read_bytes()
    weights.write_bytes(undamaged[:-1] + bytes([undamaged[-1] ^ 1]))
    assert call(*words(write_small(tmp_path), shards.folder, out, *TABLE_3)) == 2
    err = capsys.readouterr().err
    assert "M_id failed:" in err and "cannot be used as run folder" in err and "its last checkpoint is damaged" in err
    assert "collagan reproduce: 6 numbers of the tables are missing" in err and weights.read_bytes() == undamaged
    cells, same = (content(folder)["table3.json"]["cells"] for folder in (out, undisturbed))
    assert cells["M_id"]["nose"]["ours"] is None and cells["M_d"] == same["M_d"]
    assert "1.85 / – / –" in (out / "table3.md").read_text() and (out / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sets": ("optim.generator.lr=1e-3",)}, "optim.generator.lr: 0.0002 -> 0.001"),
        ({"scale": 0.004}, "schedule.steps: 3 -> 1"),
    ],
)
def test_a_folder_of_other_runs_is_refused(undisturbed, shards, tmp_path, change, said):
    options = {"tables": (3,), "figures": (), "scale": 0.01, **change}
    with pytest.raises(CheckpointError, match=r"another --out") as error:
        prepare(ReproduceOptions(str(write_small(tmp_path)), str(shards.folder), undisturbed, **options))
    assert said in str(error.value)


def test_the_manifest_is_read_through_the_cache_that_is_asked_for(shards, tmp_path, monkeypatch):
    """Other settings are for the runs."""
    seen = []
    monkeypatch.setattr(remote, "open_location", lambda data, cache: seen.append(cache.folder) or Path(data))
    sets = (f"data.cache.folder={tmp_path}", "loss.weights.landmarks.rec=2", "schedule.batch=4")
    prepare(ReproduceOptions("stable", str(shards.folder), tmp_path / "out", (3,), (), sets=sets))
    assert seen == [str(tmp_path)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"config": "sii"}, ConfigError, "sii: is a configuration of sii"),
        ({"sets": ("schedule.batch=64",)}, DataError, "the split has 48 samples"),
        ({"ranks": 3}, ConfigError, "cannot be shared evenly by 3 ranks"),
        ({"tables": (), "figures": ()}, ConfigError, "name at least one"),
    ],
)
def test_what_can_never_start_is_refused_at_once(shards, tmp_path, options, error, message):
    given = {"config": "stable", "tables": (3,), "figures": (), "sets": ("schedule.batch=4",), **options}
    with pytest.raises(error, match=message):
        prepare(ReproduceOptions(data=str(shards.folder), out=tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_describes_itself(shards, tmp_path):
    sets = ("schedule.steps=40", "schedule.batch=4", "data.image_size=32", "evaluate.samples=5")
    options = ReproduceOptions("stable", str(shards.folder), tmp_path / "out", (3,), (), scale=0.1, sets=sets)
    assert describe(options, *prepare(options)).startswith(
        "stable at scale 0.1: 4 steps of 4, 32x32 pixels, trained on 48 and scored on 5 samples of packed"
    )


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ((), "Test views are shifted, turned and scaled by the law of training"),
        (tuple(f"data.augment.{key}=0" for key in ("shift", "rotate", "scale")), "Test views are plain, since data.augment"),
        (("evaluate.augment=false",), "Test views are plain (evaluate.augment: false)"),
    ],
)  # fmt: skip
def test_a_reproduction_says_whether_the_crop_gives_landmarks_away(shards, tmp_path, sets, said):
    options = ReproduceOptions(
        "stable",
        str(shards.folder),
        tmp_path / "out",
        (1, 2),
        (),
        sets=("data.image_size=32", "schedule.batch=4", "schedule.steps=40", *sets),
    )
    text = describe(options, *prepare(options))
    assert said in text and "distances are in the features of M_s." in text

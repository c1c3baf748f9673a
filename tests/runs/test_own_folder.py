import json
import shutil

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.runs.own_folder import check_own_run
from tests.commands.conftest import SMALL, call

CONFIG, LOG = "lr: 1\nmodel: resnet\n", '{"step": 1, "loss": 0.5}\n'


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "checkpoints/last.ckpt", "main.py", "lease", "world.json"]
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_folder_of_another_program_is_refused_and_stays_as_it_is(shards, tmp_path, capsys, name, options):
    folder = tmp_path / "project"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(CONFIG if name.endswith("yaml") else LOG)
    before = content(folder)
    assert call("train", "demo", "--data", shards.folder, "--run", folder, *SMALL, *options) == 2
    said = capsys.readouterr().err
    assert f"{folder}: holds something that is no run ({name.split('/')[0]}); give another --out" in said
    assert content(folder) == before


def test_what_may_lie_there_before_the_first_start(tmp_path):
    check_own_run(tmp_path / "absent")
    check_own_run(tmp_path)
    for name in ("out.log", "slurm-7.out", "failed", "requeue", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / "logs").mkdir()
    check_own_run(tmp_path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    """The library that reads tensors knows no other names: a run would train, and never be read."""
    with pytest.raises(ConfigError, match=r"the name is not UTF-8"):
        check_own_run(tmp_path / "run\udcff")
    check_own_run(tmp_path / "r\u00fcn\n\t'$(x)")


@pytest.mark.parametrize("kept", ["lease", "world.json", "data.json", "checkpoints"])
def test_a_run_is_known_by_any_of_its_records(run, kept):
    """People add files, and lose some."""
    (run / "notes.md").touch()
    for path in list(run.iterdir()):
        if path.name not in (kept, "notes.md", "config.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    check_own_run(run)


def test_a_trial_of_a_sweep_is_known_by_its_record(tmp_path):
    (tmp_path / "trial.json").write_text(json.dumps({"number": 3}))
    check_own_run(tmp_path)
    (tmp_path / "trial.json").write_text(json.dumps([3]))
    with pytest.raises(ConfigError, match=r"no run \(trial.json\)"):
        check_own_run(tmp_path)


SPACE = (
    "{metric: psnr_hole, scheduler: none, search: random, space: {optim.generator.lr: {loguniform: [1.0e-4, 1.0e-3]}}}"
)


@pytest.mark.parametrize(
    "name",
    [
        "report.html",
        "sweep.json",
        "claims.json",
        "configs/resnet.yaml",
        "runs/one/metrics.jsonl",
        "trials/t000/trial.json",
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("command", ["sweep", "reproduce"])
def test_a_foreign_folder_as_out_is_refused_and_stays_as_it_is(shards, tmp_path, capsys, command, name, options):
    folder, space = tmp_path / "project", tmp_path / "space.yaml"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(CONFIG if name.endswith("yaml") else LOG)
    space.write_text(SPACE)
    before = sorted(folder.rglob("*")), content(folder)
    more = ["--space", space] if command == "sweep" else []
    assert call(command, "demo", "--data", shards.folder, "--out", folder, *more, *options) == 2
    kind = {"sweep": "sweep", "reproduce": "reproduction"}[command]
    said = capsys.readouterr().err
    assert f"{folder}: holds something that is no {kind} ({name.split('/')[0]}); give another --out" in said
    assert (sorted(folder.rglob("*")), content(folder)) == before


@pytest.mark.parametrize(
    ("command", "mark", "text"),
    [("sweep", "sweep.json", '{"identity": {}}'), ("sweep", "trials/t000/trial.json", '{"number": 0}'),
     ("reproduce", "claims.json", '{"claims": []}'), ("reproduce", "configs/M_i.yaml", "schedule: {steps: 3}\n")],
)  # fmt: skip
def test_a_foreign_page_in_an_own_folder_is_refused_at_the_start(shards, tmp_path, capsys, command, mark, text):
    (tmp_path / "out" / mark).parent.mkdir(parents=True)
    (tmp_path / "out" / mark).write_text(text)
    (tmp_path / "space.yaml").write_text(SPACE)
    page = tmp_path / "out/report.html"
    page.write_text("<title>a thesis</title>")
    before = content(tmp_path)
    more = ["--space", tmp_path / "space.yaml"] if command == "sweep" else []
    assert call(command, "demo", "--data", shards.folder, "--out", tmp_path / "out", *more) == 2
    assert f"{page}: is there and was not written by `collagan report`; give another --out" in capsys.readouterr().err
    assert content(tmp_path) == before

from pathlib import Path

from collagan_dist.runs.layout import RunPaths, checkpoint_dir, checkpoint_steps, step_of
from tests.conftest import ROOT


def test_checkpoints_are_listed_by_step(tmp_path):
    """Not what is unfinished, being removed, or somebody else's."""
    paths = RunPaths(tmp_path)
    assert paths.steps_saved() == [] and paths.newest_step() == 0
    for name in ("step-00000010", "step-00000002", ".step-00000011", ".old-00000001", "step-00000012.kept", "notes"):
        (paths.checkpoints / name).mkdir(parents=True)
    (paths.checkpoint(2) / "manifest.json").touch()
    assert paths.steps_saved() == checkpoint_steps(paths.checkpoints) == [2, 10]
    assert paths.newest_step() == 10 and paths.committed_steps() == [2]


def test_a_step_has_one_name():
    assert checkpoint_dir(Path("c"), 123) == Path("c/step-00000123")
    found = [step_of(name) for name in ("step-00000123", "step-123456789", "step-", "step-٣", "x-1")]
    assert found == [123, 123456789, None, None, None]


def test_an_evaluation_is_named_by_what_it_measures():
    paths = RunPaths(Path("run"))
    assert paths.evaluation("test", "block") == Path("run/evaluation/test-block.json")
    assert paths.evaluation("valid", "O1", "poisson", positions="fixed").name == "valid-O1-fixed-blended.json"


def test_the_documentation_names_every_file():
    text = (ROOT / "docs/run-folder.md").read_text().split("\n\n")[1]
    names = [path.name for path in vars(RunPaths(Path("run"))).values() if path != Path("run")]
    assert len(names) > 15
    for name in names:
        assert name in text, name

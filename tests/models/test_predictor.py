import pytest

from collagan_dist.config.load import load_config, model_label
from collagan_dist.inference.export import export
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.report.page import write_report
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.models.peers import peer


@pytest.mark.parametrize("name", ["ce", "gfc"])
def test_completion_without_its_discriminators(shards, parser, tmp_path, name):
    """Exported without them; GFC's parser may be gone, and holes of any kind are completed."""
    gone = tmp_path / "parser"
    gone.symlink_to(parser)
    run = tmp_path / "run"
    train(peer(shards, name, gone, evaluate__baselines=2), run, World())
    gone.unlink()
    export(run, tmp_path / "out")
    assert not list((tmp_path / "out").glob("disc*"))
    ((mine, _),) = score(tmp_path / "out", World(), ScoreRequest(holes=("noise",)), str(shards.folder))
    assert mine["psnr_hole"] > 0 and mine == score(run, World(), ScoreRequest(holes=("noise",)))[0][0]
    assert model_label(load_config(str(run / "config.yaml")).model) == name.upper()
    assert f"{name.upper()}" in write_report([run]).read_text()

import shlex

from collagan_dist.commands.sweep import _print_results
from collagan_dist.sweep.prepare import SweepOptions
from tests.conftest import ROOT


def test_a_dry_run_prints_the_first_trials_and_the_plan(collagan, shards, tmp_path):
    space, out = ROOT / "cluster/sweep.yaml", tmp_path / "out"
    command = ["sweep", "demo", "--space", space, "--data", shards.folder, "--out", out, "--trials", 4, "--dry-run"]
    result = collagan(*command, "--set", "schedule.steps=36")
    assert result.code == 0 and "# paper:" in result.out and "# the first one that is searched (random):" in result.out
    assert "# 4 trials of up to " in result.out and result.out.endswith(f"# out: {out}\n")
    assert collagan(*command, "--set", "schedule.steps=36") == result and not out.exists()
    missing = collagan(*command, "--space", "none.yaml")
    assert missing.code == 2 and "none.yaml" in missing.err


def test_the_next_command_can_be_pasted(shards, tmp_path, capsys):
    out = tmp_path / "my sweep"
    out.mkdir()
    (out / "best.yaml").touch()
    options = SweepOptions("demo", "space.yaml", str(tmp_path / "my data"), out)
    _print_results(options)
    line = capsys.readouterr().out.splitlines()[-1]
    words = ["collagan", "train", str(out / "best.yaml"), "--data", str(tmp_path / "my data")]
    assert shlex.split(line.removeprefix("next: ")) == words

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


def test_a_dry_run_names_repeats_constraints_and_starting_points(collagan, shards, tmp_path):
    """The cost is that of all seeds, also on the disk. A constraint of a metric that the model has not is refused with its line."""
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    text = "metric: psnr\nconstraints: {landmark_error: {max: 3}}\nrepeats: 3\nstart: [{optim.generator.lr: 0.02}]\n"
    space.write_text(text + "space: {optim.generator.lr: {uniform: [0.01, 0.1]}}\n")
    command = ["sweep", "demo", "--space", space, "--data", shards.folder, "--out", out, "--trials", 4, "--dry-run"]
    command += ["--set", "schedule.steps=6", "--set", "schedule.batch=4"]
    found = collagan(*command)
    assert found.code == 0 and "# start:\n{optim.generator.lr: 0.02}\n" in found.out
    assert (
        "# 4 trials of up to 24 samples, each with 3 seeds, " in found.out and "about 288 samples in all" in found.out
    )
    assert (
        "# behind all others, and never the best: landmark_error above 3\n" in found.out
        and "# disk: 12 more trials" in found.out
    )
    refused = collagan(*command, "--model", "M_i")
    assert refused.code == 2 and "space.yaml:2: constraints: landmark_error is of landmarks" in refused.err


def test_the_next_command_can_be_pasted(shards, tmp_path, capsys):
    out = tmp_path / "my sweep"
    out.mkdir()
    (out / "best.yaml").touch()
    options = SweepOptions("demo", "space.yaml", str(tmp_path / "my data"), out)
    _print_results(options)
    line = capsys.readouterr().out.splitlines()[-1]
    words = ["collagan", "train", str(out / "best.yaml"), "--data", str(tmp_path / "my data")]
    assert shlex.split(line.removeprefix("next: ")) == words

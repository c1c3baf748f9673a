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

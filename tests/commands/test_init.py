import shlex

from collagan_dist.commands.main import build_parser
from tests.conftest import ROOT


def test_writes_files_and_names_the_next_commands(collagan, tmp_path):
    folder = tmp_path / "my project"
    result = collagan("init", folder)
    assert result.code == 0
    paths, (summary, first, *commands) = result.out.split("\n")[:21], result.out.strip().split("\n")[21:]
    assert sorted(map(str, folder.glob("*/*"))) == sorted(paths)
    assert summary == f"{folder}: 21 files written, 0 were there already" and first.startswith("next: ")
    pack, sweep, sbatch = map(shlex.split, commands)
    build_parser().parse_args(pack[1:])
    build_parser().parse_args(sweep[1:])
    build_parser().parse_args(["train", *sbatch[2:]])
    named = ("shards/folder.yaml", "cluster/sweep.yaml", "slurm/train.sh")
    assert [pack[2], sweep[4], sbatch[1]] == [f"{folder}/{name}" for name in named]


def test_the_same_command_again_writes_nothing(collagan, tmp_path):
    assert collagan("init", tmp_path).code == 0
    assert collagan("init", tmp_path).out.startswith(f"{tmp_path}: 0 files written, 21 were there already\n")


def test_a_changed_file_is_kept(collagan, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/celeba.yaml").write_text("mine")
    result = collagan("init", tmp_path)
    assert result.code == 2 and f"collagan init: {tmp_path}/shards/celeba.yaml: would be overwritten" in result.err
    assert [path.name for path in tmp_path.rglob("*")] == ["shards", "celeba.yaml"]
    assert (tmp_path / "shards/celeba.yaml").read_text() == "mine"


def test_a_checkout_holds_its_own_files(collagan):
    """Nothing is written there."""
    assert collagan("init", ROOT).out.startswith(f"{ROOT}: 0 files written, 21 ")

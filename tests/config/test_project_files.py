from pathlib import Path

import pytest

import collagan_dist
from collagan_dist.config import project_files
from collagan_dist.config.load import load_config
from collagan_dist.data.readers.recipe import load_recipe
from collagan_dist.errors import ConfigError
from collagan_dist.sweep.space import read_space
from tests.conftest import ROOT

FILES = {
    f"{folder}/{path.name}": path.read_bytes() for folder in ("shards", "cluster", "slurm") for path in (ROOT / folder).iterdir()
}  # fmt: skip


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_name_is_the_file_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(project_files.recipes()) == ["celeba", "celeba_aligned", "celebamask_hq", "drawn", "folder"]
    for name in project_files.recipes():
        assert load_recipe(name) == load_recipe(str(ROOT / f"shards/{name}.yaml"))
    base = load_config("stable")
    assert read_space("lambda", base).spec == read_space(str(ROOT / "cluster/sweep.yaml"), base).spec


def test_a_file_here_wins_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn").mkdir()
    assert load_recipe("drawn").out == "packed/drawn"
    (tmp_path / "celeba").write_text("dataset: folder\nroot: mine\nout: here\n")
    assert load_recipe("celeba").out == "here"


def test_errors_of_a_known_file_name_it():
    with pytest.raises(ConfigError, match=r"^recipe drawn:7: store: "):
        load_recipe("drawn", sets=["store=x"])
    with pytest.raises(ConfigError, match=r"^search space lambda:12: loss.weights"):
        read_space("lambda", load_config("stable", "M_i"))


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("celebaa", ["there is no recipe 'celebaa'; did you mean celeba? Known by name: celeba, ", "or give a YAML file"]),
        ("xyz", ["there is no recipe 'xyz'; known by name: celeba, "]),
        ("shards/drawn.yaml", ["shards/drawn.yaml: cannot read the recipe (No such file", "did you mean drawn?"]),
        ("mine.yml", ["mine.yml: cannot read the recipe", "nown by name: celeba, "]),
        ("folder/", ["folder/: cannot read the recipe", "did you mean folder?"]),
    ],
)  # fmt: skip
def test_a_misspelled_name(tmp_path, monkeypatch, source, parts):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_recipe(source)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_path_of_the_checkout_leads_to_the_name_of_a_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cluster/sweep\.yaml: cannot read the search space .*did you mean lambda\?"):
        read_space("cluster/sweep.yaml", load_config("stable"))


def test_an_installed_package_takes_its_own_folders(tmp_path, monkeypatch):
    """Not those of another package beside it."""
    package = tmp_path / "collagan_dist"
    for folder, name in ((package / "project/shards", "inside"), (tmp_path / "shards", "beside")):
        folder.mkdir(parents=True)
        (folder / f"{name}.yaml").touch()
    monkeypatch.setattr(collagan_dist, "__file__", str(package / "__init__.py"))
    assert list(project_files.recipes()) == ["inside"]
    with pytest.raises(ConfigError, match="project/slurm: this installation lacks the folder"):
        project_files.project_folder("slurm")


def test_copies_are_the_files_and_the_same_call_continues(tmp_path):
    out = tmp_path / "a/b"
    new, there = project_files.copy_project(out)
    assert written(out) == FILES and len(new) == len(FILES) and not there
    (out / "slurm/train.sh").unlink()
    new, there = project_files.copy_project(out)
    assert new == [out / "slurm/train.sh"] and len(there) == len(FILES) - 1 and written(out) == FILES


@pytest.mark.parametrize("kind", ["longer", "other", "folder", "link"])
def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path, kind):
    changed = tmp_path / "shards/drawn.yaml"
    changed.parent.mkdir()
    if kind == "folder":
        changed.mkdir()
    elif kind == "link":
        changed.symlink_to(tmp_path / "nothing")
    else:
        changed.write_bytes(FILES["shards/drawn.yaml"] + b"\n" if kind == "longer" else b"mine")
    before = written(tmp_path)
    with pytest.raises(ConfigError, match=r"drawn\.yaml: would be overwritten, .* give another folder"):
        project_files.copy_project(tmp_path)
    assert written(tmp_path) == before and not (tmp_path / "slurm").exists()


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "slurm").touch()
    with pytest.raises(ConfigError, match=r"slurm: cannot be made \(.*\); give another folder"):
        project_files.copy_project(tmp_path)
    assert written(tmp_path) == {"slurm": b""}

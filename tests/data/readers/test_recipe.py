import pytest

from collagan_dist.data.readers.recipe import load_recipe
from collagan_dist.errors import ConfigError


@pytest.mark.parametrize(
    ("dataset", "line", "text"),
    [
        ("celeba", "landmarks: faces.csv", "celeba has landmarks of its own"),
        ("celeba_aligned", "landmarks: faces.csv", "celeba_aligned has landmarks of its own"),
        ("celebamask_hq", "landmarks: faces.csv", "celebamask_hq has no landmarks"),
        ("celebamask_hq", "labels: Label", "celebamask_hq has label maps of its own"),
    ],
)
def test_keys_without_a_meaning_are_refused(tmp_path, dataset, line, text):
    path = tmp_path / "r.yaml"
    path.write_text(f"dataset: {dataset}\nroot: x\nout: y\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert f"r.yaml:4: {line.split(':')[0]}: {text}" in str(caught.value)
    path.write_text(f"dataset: {dataset}\nroot: x\nout: y\n{line.split(':')[0]}: null\n")
    load_recipe(str(path))


def test_recipes_that_come_with_the_project():
    from tests.conftest import ROOT

    for path in (ROOT / "shards").glob("*.yaml"):
        assert load_recipe(str(path)).dataset in (path.stem, "celeba")

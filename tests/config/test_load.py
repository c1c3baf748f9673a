import pytest

from collagan_dist.config import load, strict_yaml
from collagan_dist.config.load import changed_settings, load_config
from collagan_dist.errors import ConfigError


def test_defaults_then_file_then_model_then_set(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {tasks: [inpainting], concentrated: true}\nschedule: {batch: 8, epochs: 3}\n")
    loaded = load_config(str(path), "M_id", ["schedule.batch=16", "optim.generator.lr=1e-3"], "somewhere")
    assert loaded.schedule.batch == 16 and loaded.schedule.epochs == 3 and loaded.seed == 0
    assert loaded.model.tasks == ("inpainting", "landmarks") and not loaded.model.concentrated
    assert loaded.optim.generator.lr == 1e-3 and loaded.data.shards == "somewhere"


def test_what_is_written_is_read_back_equal():
    for name in load.preset_names():
        config = load_config(name)
        assert load.validate_config(strict_yaml.load(load.to_yaml(config), "text")[0], "text") == config


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("schedule.steps=7", True), ("log.every=7", True), ("log.sinks=[tensorboard]", True),
        ("checkpoint.keep=9", True), ("data.threads=4", True), ("data.cache.gigabytes=1.0", True), ("runtime.precision=bf16", True),
        ("data.image_size=64", False), ("loss.adv=minmax", False), ("seed=4", False), ("schedule.batch=8", False),
        ("optim.generator.lr=0.5", False), ("data.augment.flip=0.0", False),
    ],
)  # fmt: skip
def test_identity_keys_are_what_is_learned(change, same):
    plain, changed = load_config("paper"), load_config("paper", None, [change])
    assert (load.identity_hash(plain) == load.identity_hash(changed)) is same
    assert bool(load.differences(load.identity_keys(plain), load.identity_keys(changed))) is not same


def test_weights_follow_the_model_and_one_may_be_given_alone():
    assert load_config("demo", "M_i").loss.weights.keys() == {"inpainting"}
    weights = load_config("stable", "M_is", ["loss.weights.inpainting.rec=30"]).loss.weights
    assert (weights["inpainting"].adv, weights["inpainting"].rec, weights["segmentation"].rec) == (0.8, 30.0, 200.0)


@pytest.mark.parametrize(
    ("preset", "sets", "message"),
    [
        ("stable", ["evaluate.noise=maybe"], r"^--set evaluate.noise=maybe: evaluate.noise: "),
        ("stable", ["model.widths.generater=4"], r"^--set model.\S+=4: there is no key .*did you mean generator"),
        ("stabel", [], "no preset 'stabel'; did you mean stable"),
    ],
)
def test_an_error_names_the_argument_and_the_nearest_name(preset, sets, message):
    with pytest.raises(ConfigError, match=message):
        load_config(preset, None, sets)


def test_a_peer_learns_as_its_preset_says_for_as_long_as_the_configuration_does():
    own, peer, published = load_config("demo"), load_config("demo", "CE"), load_config("ce")
    assert (peer.loss, peer.optim, peer.model.name) == (published.loss, published.optim, "ce")
    assert (peer.schedule, peer.data.image_size) == (own.schedule, own.data.image_size)


def test_nested_values():
    tree: dict[str, object] = {"a": {"b": 1}}
    load.set_nested(tree, ("a", "c", "d"), 2)
    assert tree == {"a": {"b": 1, "c": {"d": 2}}} and load.get_nested(tree, "a", "c", "d") == 2
    assert load.get_nested(tree, "a", "b", "c") is None
    with pytest.raises(ConfigError, match=r"a.b.c: b is a value \(1\), not a section"):
        load.set_nested(tree, ("a", "b", "c"), 3)


@pytest.mark.parametrize("model", [None, "M_id", "M*_i", "CE"])
@pytest.mark.parametrize("preset", ["demo", "paper", "stable"])
def test_settings_that_differ_from_the_preset(preset, model):
    """The preset is found again, also by another model; keys are those that were set."""
    sets = {"schedule.steps": 77, "loss.adv": "minmax", "data.augment.rotate": 3.0}
    config = load_config(preset, model, [f"{key}={value}" for key, value in sets.items()], "/data/packed")
    assert changed_settings(config) == (preset, dict(sorted(sets.items())))
    assert changed_settings(load_config(preset, model)) == (preset, {})


def test_a_config_is_a_source():
    config = load_config("demo", sets=["schedule.steps=3"])
    assert load_config(config) == config
    assert load_config(config, sets=["seed=4"], shards="x") == load_config(
        "demo", None, ["schedule.steps=3", "seed=4"], "x"
    )


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("schedul.steps=5", "there is no key schedul.steps; did you mean schedule.steps?"),
        ("lr=3", "there is no key lr; did you mean optim.generator.lr?"),
        ("optim.generater.lr=3", "there is no key optim.generater.lr; did you mean generator?"),
        ("loss.weights.inpainting.advv=1", "there is no key loss.weights.inpainting.advv; did you mean adv?"),
        ("seed.x=1", "seed is a value, not a section"),
        ("schedule.steps=abc", "schedule.steps: needs an integer, is 'abc'"),
        ("schedule=3", "schedule: needs keys and values, is 3"),
        ("evaluate.fixed.O1=3", "evaluate.fixed.O1: needs a list, is 3"),
    ],
)
def test_a_wrong_assignment_is_blamed_itself(item, said):
    """Not the preset that it changes."""
    with pytest.raises(ConfigError) as refused:
        load_config("demo", sets=["seed=3", item])
    assert str(refused.value) == f"--set {item}: {said}"


def test_leaves_and_their_differences():
    """An empty section is a value where all values are shown, and no difference to one that is not there."""
    tree = {"a": {"b": 1, "c": {}}, "list": [1, 2], "runs": [{"n": 1}, {"n": 2}]}
    assert load.leaves(tree) == {"a.b": 1, "a.c": {}, "list": [1, 2], "runs.0.n": 1, "runs.1.n": 2}
    assert load.differences(tree, {"list": [1], "runs": tree["runs"]}) == ["a.b: 1 -> None", "list: [1, 2] -> [1]"]
    assert load.differences({"a": {}}, {"a": {"b": 2}}) == ["a.b: None -> 2"]

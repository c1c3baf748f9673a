import re

import pytest

from collagan_dist.commands.main import COMMANDS, build_parser


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian demo", "there is no command 'trian'; did you mean train?"),
        ("verify x --dep", "unrecognized arguments: --dep; did you mean --deep?"),
        ("train demo --sets a=b", "unrecognized arguments: --sets a=b; did you mean --set?"),
        ("train demo --seed 3", "use --set seed=3\n"),
        ("train --seed 3 demo", "use --set seed=3\n"),
        ("train demo --seed=3", "use --set seed=3\n"),
        ("train demo --seed --dry-run", "use --set seed=...\n"),
        ("sweep demo --space s --data d --out o --loss.adv ns", "use --set loss.adv=ns\n"),
        ("train demo --stpes 5", "use --set schedule.steps=5 or --set evaluate.search.steps=5\n"),
        ("evaluate run --readout argmax", "use --set evaluate.readout=argmax\n"),
        (
            "evaluate run --seed 3",
            "unrecognized arguments: --seed 3; did you mean --set?\n",
        ),  # it is the run's, and cannot be changed
        ("train demo --zzzzz", "unrecognized arguments: --zzzzz\n"),
        ("draw out --seeed 3", "unrecognized arguments: --seeed 3; did you mean --seed?\n"),
        ("pack shards/drawn.yaml --steps 3", "unrecognized arguments: --steps 3\n"),  # its keys are those of a recipe
    ],
)
def test_what_may_have_been_meant(words, said, collagan):
    result = collagan(*words.split())
    assert result.code == 2 and said in result.err and result.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adopt", ""], "usage: collagan adopt .* an argument is empty; is a variable of the shell not set"),
        (["train", "demo", "--data", "", "--out", "x"], "the word after --data is empty; is a variable"),
        (["train", "demo", "--out="], "--out is empty; is a variable"),
        ([""], "an argument is empty"),
    ],
)
def test_an_empty_word(words, said, collagan):
    """It would be the current folder."""
    result = collagan(*words)
    assert result.code == 2 and re.search(said, result.err, re.DOTALL) and result.out == ""


def test_an_empty_word_that_is_a_choice(collagan):
    for words in (("--figures", ""), ("--slurm=",)):
        assert "is empty" not in collagan("reproduce", "demo", "--data", "nowhere", "--out", "x", *words).err


def test_a_word_like_no_command_lists_them(collagan):
    result = collagan("xyzzy")
    assert result.code == 2 and all(name in result.err for name in COMMANDS) and "did you mean" not in result.err


def test_the_usage_is_that_of_the_command(collagan):
    assert collagan("train", "demo", "--dta", "x").err.startswith("usage: collagan train ")
    assert set(build_parser().commands()) == set(COMMANDS)

"""Names of the models in the paper, and the loss weights λ of section 4.2."""

from __future__ import annotations

from typing import Any, Final

from collagan_dist.errors import ConfigError

# λ of section 4.2 as (adv, rec) for a model of one, two, and three or more tasks. A fourth task adds its row here.
TASK_WEIGHTS: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "inpainting": ((1.0, 100.0), (0.8, 100.0), (0.8, 100.0)),
    "segmentation": ((1.0, 1000.0), (0.2, 200.0), (0.1, 200.0)),
    "landmarks": ((1.0, 1000.0), (0.2, 200.0), (0.1, 200.0)),
}


def paper_weights(task: str, tasks: int) -> tuple[float, float]:
    """Return λ as (adv, rec) of a task in a model of so many tasks. The paper's table ends at three; a longer model takes the last row."""
    rows = TASK_WEIGHTS[task]
    return rows[min(tasks, len(rows)) - 1]


# The letters are tasks: i inpainting, s segmentation, d landmarks (detection); * is the concentrated scheme (section 3.3).
MODELS: Final = ("M_i", "M_s", "M_d", "M_id", "M_is", "M_isd", "M*_isd")
# Models that the paper does not have: its scheme with fewer tasks. They tell the scheme from the collaboration.
CONTROLS: Final = ("M*_i", "M*_id", "M*_is")
# The peers of Table 1: Context Encoder, semantic inpainting, generative face completion. presets/ has one file for each.
PEERS: Final = ("CE", "SII", "GFC")

_TASK_OF_LETTER: Final = {"i": "inpainting", "s": "segmentation", "d": "landmarks"}


def model_settings(name: str) -> dict[str, Any]:
    """Return the keys of section `model` that `--model NAME` sets, for one of MODELS or CONTROLS. Raises ConfigError."""
    if name not in (*MODELS, *CONTROLS):
        raise ConfigError(f"--model {name}: no such model; choose from {', '.join((*MODELS, *CONTROLS, *PEERS))}")
    head, letters = name.split("_")
    return {"name": "collagan", "tasks": [_TASK_OF_LETTER[c] for c in letters], "concentrated": head.endswith("*")}


def model_name(kind: str, tasks: tuple[str, ...], concentrated: bool) -> str:
    """Return the paper's name of a model; a task without a letter adds its own name, another kind of model has its own."""
    if kind != "collagan":
        return kind.upper() if kind.upper() in PEERS else kind
    letters = {task: letter for letter, task in _TASK_OF_LETTER.items()}
    # Without inpainting there is no hole to concentrate on, whatever the key says.
    star = "*" if concentrated and "inpainting" in tasks else ""
    return f"M{star}_" + "".join(letters.get(t, f"+{t}") for t in tasks)

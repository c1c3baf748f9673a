"""The table of Ω, the tasks that one generator learns together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from collagan_dist.config.tree import Config
from collagan_dist.tasks.base import Task
from collagan_dist.tasks.inpainting import Inpainting
from collagan_dist.tasks.landmarks import Landmarks
from collagan_dist.tasks.segmentation import Segmentation

# Another task is a file here, a line in this table, and its weights λ in TASK_WEIGHTS (config/models.py).
TASKS: dict[str, Callable[[Config], Task]] = {
    "inpainting": Inpainting,
    "segmentation": Segmentation,
    "landmarks": Landmarks,
}


def build_tasks(config: Config) -> dict[str, Task]:
    """Return the configured tasks by name, in the order of their channels in the generator's output."""
    return {name: TASKS[name](config) for name in config.model.tasks}


def needed_annotations(tasks: Iterable[Task]) -> tuple[bool, bool]:
    """Return whether any of the tasks needs label maps, and whether any needs landmarks."""
    needs = [(task.needs_labels, task.needs_points) for task in tasks]
    return any(labels for labels, _ in needs), any(points for _, points in needs)

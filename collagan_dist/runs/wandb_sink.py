"""The sink of W&B: RUN/wandb, offline unless WANDB_MODE says otherwise."""

from __future__ import annotations

import io
import os
import secrets
from typing import Any, ClassVar

from collagan_dist.runs.tracker import TrackedRun, TrackerSink


class WandbSink(TrackerSink):
    """All starts of a run are one run of W&B. The x axis is `step`: W&B's own never goes back, as a continued run does."""

    name: ClassVar[str] = "wandb"
    needs: ClassVar[tuple[str, ...]] = ("wandb",)
    _run: Any

    def _open(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to W&B's authors
        import wandb

        tracked = self._tracked() or TrackedRun(id=secrets.token_hex(4))
        self._note(tracked)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "collagan_dist"),
            name=self.run.resolve().name,
            id=tracked.id,
            resume="allow",
            dir=self.run,
            config=self._settings(),
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            settings=wandb.Settings(silent=True, console="off", disable_code=True, disable_git=True),
        )
        self._run.define_metric("*", step_metric="step")

    def _send(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})

    def _send_grid(self, step: int, png: bytes) -> None:
        import wandb
        from PIL import Image

        with Image.open(io.BytesIO(png)) as picture:  # which this program has written
            self._run.log({"step": step, "grid": wandb.Image(picture)})

    def _finish(self) -> None:
        self._run.finish()

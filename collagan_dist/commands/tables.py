"""Numbers as a person reads them in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Metric: (what to print, its number format).
_ROWS = {
    "psnr_hole": ("PSNR in the hole, dB", ".2f"),
    "psnr": ("PSNR, dB", ".2f"),
    "ssim_hole": ("SSIM in the hole", ".3f"),
    "ssim": ("SSIM", ".3f"),
    "dice": ("Dice, mean of classes", ".3f"),
    "landmark_error": ("landmark error, pixels", ".2f"),
}


def metrics_table(metrics: dict[str, Any]) -> None:
    """The headline metrics of metrics.json: model, standard error, baselines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    baselines = metrics.get("baselines", {})
    subset = metrics.get("baselines_subset", {}).get("samples")
    title = f"{metrics['samples']} {metrics['split']} samples, {'no' if metrics['hole'] == 'none' else metrics['hole']} holes"
    title += ", blended" if metrics["blend"] == "poisson" else ""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for name in ("this model", "±", *(f"{n} (first {subset})" if subset else n for n in baselines)):
        table.add_column(name.replace("_", " "), justify="right")
    for key, (label, form) in _ROWS.items():
        if (value := _scalar(metrics.get(key))) is not None:
            others = [_scalar(b.get(key)) for b in baselines.values()]
            cells = [value, _scalar(metrics.get("se", {}).get(key)), *others]
            table.add_row(label, *("" if c is None else format(c, form) for c in cells))
    console().print(table)


def console() -> Console:
    """Where tables go: the terminal's width, or 120 columns in a log, which has none of its own."""
    from rich.console import Console

    return screen if (screen := Console()).is_terminal else Console(width=120)


def _scalar(value: Any) -> float | None:
    return value.get("mean") if isinstance(value, dict) else value

"""How numbers and names are written, the same everywhere on the page."""

from __future__ import annotations

import re

# Metric heads: label, digits after the point, unit. Anything else is shown with four significant digits.
_METRICS = {
    "psnr": ("PSNR", 2, "dB"),
    "ssim": ("SSIM", 3, ""),
    "dice": ("Dice", 3, ""),
    "landmark_error": ("Landmark error", 2, "px"),
}
_SUFFIXES = {"": "", "_hole": ", in the hole", "_per_image": ", per picture", "_argmax": ", by arg-max"}
_LOWER_IS_BETTER = re.compile(r"error|loss|distance|mse|mae|rmse|fid|lpips", re.IGNORECASE)

MISSING = "–"


def head(key: str) -> str:
    """ "dice_hole/face" -> "dice_hole"."""
    return key.split("/", 1)[0]


def stem(key: str) -> str:
    """ "dice_hole/face" -> "dice": what shares a table, a curve, a unit."""
    name = head(key)
    for suffix in ("_per_image", "_hole", "_argmax"):
        name = name.removesuffix(suffix)
    return name


def metric_label(key: str) -> str:
    """ "psnr_hole" -> "PSNR, in the hole"; "dice/mean" -> "Dice, average"."""
    label = _METRICS.get(stem(key), (words(stem(key)), 0, ""))[0]
    label += _SUFFIXES.get(head(key).removeprefix(stem(key)), "")
    part = key.removeprefix(head(key)).removeprefix("/")
    return f"{label}, {part_label(part).lower()}" if part else label


def variant_label(key: str) -> str:
    """Which variant of its metric a key is, where the metric itself is already named."""
    variant = head(key).removeprefix(stem(key)).removeprefix("_")
    return {"": "Overall", "hole": "In the hole", "per_image": "Per picture", "argmax": "By arg-max"}.get(
        variant, words(variant)
    )


def part_label(part: str) -> str:
    return "Average" if part == "mean" else words(part)


def unit(key: str) -> str:
    return _METRICS[stem(key)][2] if stem(key) in _METRICS else ""


def metric(key: str, value: float | None, with_unit: bool = False) -> str:
    """A value of a metric with the digits that metric deserves."""
    if value is None:
        return MISSING
    digits = _METRICS[stem(key)][1] if stem(key) in _METRICS else None
    text = number(value) if digits is None else _fixed(value, digits)
    return f"{text} {unit(key)}".strip() if with_unit else text


def spread(key: str, value: float | None) -> str:
    """A standard error beside its value; never "± 0.00", which would claim certainty."""
    if value is None:
        return ""
    text = metric(key, value)
    if value > 0 and stem(key) in _METRICS and float(text) == 0:
        return f"< {10 ** -_METRICS[stem(key)][1]:g}"
    return f"± {text}"


def better(key: str) -> int:
    """+1 when larger is better, -1 when smaller is."""
    return -1 if _LOWER_IS_BETTER.search(key) else 1


def number(value: float) -> str:
    """Any other number: whole ones with thousands separators, the rest with four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def words(name: str) -> str:
    """ "left_eyebrow" -> "Left eyebrow"."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def plain(value: object) -> str:
    """A configuration or world value on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", "−")

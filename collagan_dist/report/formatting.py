"""How metrics, numbers and names are written on the page."""

from __future__ import annotations

import re
from decimal import Decimal

# Metric: label, digits after the point, unit. Any other is shown with four significant digits.
_METRICS = {
    "psnr": ("PSNR", 2, "dB"),
    "ssim": ("SSIM", 3, ""),
    "frechet": ("Fréchet distance", 3, ""),
    "perceptual": ("Perceptual distance", 4, ""),
    "dice": ("Dice", 3, ""),
    "landmark_error": ("Landmark error", 2, "px"),
}
_VARIANTS = {"": "Overall", "_per_image": "Per picture", "_hole": "In the hole", "_argmax": "By arg-max"}
# Metrics of new tasks are recognized by the usual names of errors.
_LOWER_IS_BETTER = re.compile(r"error|loss|distance|frechet|perceptual|mse|mae|rmse|fid|lpips", re.IGNORECASE)

MISSING = "–"


def metric_name(key: str) -> str:
    """Return the part before the class or point: "dice_hole/face" becomes "dice_hole"."""
    return key.split("/", 1)[0]


def base_metric(key: str) -> str:
    """Return the metric without its variant: "dice_hole/face" becomes "dice". Variants share a table, a chart and a unit."""
    name = metric_name(key)
    for suffix in _VARIANTS:
        name = name.removesuffix(suffix)
    return name


def metric_label(key: str) -> str:
    """Return what people read: "psnr_hole" becomes "PSNR, in the hole"; "dice/mean" becomes "Dice, average"."""
    label = _METRICS.get(base_metric(key), (to_words(base_metric(key)), 0, ""))[0]
    label += f", {variant_label(key).lower()}" if metric_name(key) != base_metric(key) else ""
    part = key.partition("/")[2]
    return f"{label}, {part_label(part).lower()}" if part else label


def metric_title(key: str) -> str:
    """Return a metric's label as part of a title or a sentence, without comma: "PSNR in the hole"."""
    return metric_label(key).replace(",", "")


def label_in_sentence(key: str) -> str:
    """Return a metric's label in lower case except of names."""
    label = metric_title(key)
    is_name = label[:2].isupper() or base_metric(key) == "dice"
    return label if is_name else label[:1].lower() + label[1:]


def variant_label(key: str) -> str:
    """Return which variant of its metric a key is, for places where the metric is named already."""
    suffix = metric_name(key).removeprefix(base_metric(key))
    return _VARIANTS.get(suffix) or to_words(suffix)


def part_label(part: str) -> str:
    return "Average" if part == "mean" else to_words(part)


def metric_unit(key: str) -> str:
    return _METRICS[base_metric(key)][2] if base_metric(key) in _METRICS else ""


def format_metric(key: str, value: float | None, with_unit: bool = False) -> str:
    """Write a value with the digits that its metric deserves."""
    if value is None:
        return MISSING
    known = _METRICS.get(base_metric(key))
    # A real minus sign is as wide as a digit, so columns of numbers line up.
    text = format_number(value) if known is None else f"{value:.{known[1]}f}".replace("-", "−")
    return f"{text} {metric_unit(key)}".strip() if with_unit else text


def format_error(key: str, value: float | None) -> str:
    """Write the standard error beside a value of the metric `key`."""
    if value is None:
        return ""
    text = format_metric(key, value)
    # "± 0.00" would claim certainty.
    if value > 0 and base_metric(key) in _METRICS and float(text) == 0:
        return f"< {10 ** -_METRICS[base_metric(key)][1]:g}"
    return f"± {text}"


def format_p(value: float) -> str:
    """Write a p-value: smaller ones than 0.001 differ in nothing that matters."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def better_sign(key: str) -> int:
    """Return +1 for a metric that is better when larger, -1 for one that is better when smaller."""
    return -1 if _LOWER_IS_BETTER.search(key) else 1


def format_number(value: float) -> str:
    """Write any other number: integers with thousands separators, the rest with four significant digits."""
    # Above 1e15 a float's last digits are noise.
    if abs(value) < 1e15 and float(value).is_integer():
        return f"{int(value):,}".replace("-", "−")
    # An integer of hundreds of digits is no float.
    return f"{value if abs(value) < 1e300 else Decimal(value):.4g}".replace("-", "−")


def to_words(name: str) -> str:
    """Return "Left eyebrow" for "left_eyebrow"."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def format_setting(value: object) -> str:
    """Write a value of a configuration on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_setting(item) for item in value) or "none"
    return str(value)

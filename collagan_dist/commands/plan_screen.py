"""What `collagan plan` prints: a plan, its scaling, its assumptions; a rehearsal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from collagan_dist.commands.tables import console, new_table
from collagan_dist.units import format_bytes, format_duration

_MILLI, _COLUMNS = 1000, 80
_FAR = 4  # times fewer samples than were measured


def show_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan in 80 columns."""
    print(
        _wrapped(
            "",
            f"{plan['model']} ({plan['configuration']}) on {plan['ranks']:,} x {plan['device']}, {plan['nodes']} node(s): "
            f"{plan['batch']:,} samples a step, {plan['share']:,} a GPU",
        )
    )
    print(_wrapped("", f"rate: {plan['rate']}\n"), end="\n\n")
    for name, text in _lines(plan):
        print(_wrapped(f"{name:13}", text))
    _show_scaling(plan)
    print(_wrapped("Assumed ", f"(docs/scaling.md): {'; '.join(_assumptions(plan))}"))


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(text, _COLUMNS, initial_indent=head, subsequent_indent=" " * len(head))


def _lines(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    step = plan["step"]
    yield (
        "step",
        (
            f"{_ms(step['seconds'])}: computes {_ms(step['compute'])}, waits for the slowest {_ms(step['waiting'])}, "
            f"small collectives {_ms(step['small'])}"
        ),
    )
    yield (
        "all-reduce",
        f"{_ms(step['all_reduce'])}, of which {_ms(step['exposed'])} are not hidden behind backward passes",
    )
    yield (
        "rate",
        f"{_images(plan['images_per_s'])} images/s, {_images(plan['images_per_s'] / plan['nodes'])} a node to be loaded",
    )
    yield "efficiency", f"{plan['efficiency']:.1%} of {plan['ranks']} times one GPU with {plan['share']} samples a step"
    yield from _resources(plan)


def _resources(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    saving, memory = plan["checkpoint"], dict(plan["memory"])
    peak, limit = memory.pop("peak"), plan["device memory"]
    room = "" if limit is None else f" of {format_bytes(limit)}{'' if peak <= limit else ': TOO MUCH'}"
    yield "memory a GPU", f"{format_bytes(peak)}{room}, and the libraries' own"
    yield "", ", ".join(f"{name} {format_bytes(size)}" for name, size in memory.items())
    run = "never ends" if plan["run seconds"] is None else format_duration(plan["run seconds"])
    yield (
        "epoch, run",
        (
            f"{format_duration(plan['epoch seconds'])} for {plan['samples']:,} samples; {run} for {plan['steps']:,} steps"
        ),
    )
    waited = ""
    if saving["waited seconds"]:
        waited = f", for which the next waits {format_duration(saving['waited seconds'])}"
    yield (
        "checkpoint",
        (
            f"{format_bytes(saving['bytes'])}: training waits {format_duration(saving['blocked seconds'])}, "
            f"it is written after {format_duration(saving['written seconds'])}{waited}"
        ),
    )
    yield (
        "goodput",
        (
            f"{saving['goodput']:.2%} with one every {saving['every']:,} steps; best every {saving['best every']:,}: {saving['best goodput']:.2%}; "
        ),
    )
    yield "", f"some node fails every {format_duration(saving['job mtbf seconds'])}"
    if plan["gpu hours"] is not None:
        price = "" if plan["cost"] is None else f", cost {plan['cost']:,.2f}"
        yield "GPU hours", f"{plan['gpu hours']:,.3g}{price}"


def _show_scaling(plan: Mapping[str, Any]) -> None:
    names = ("GPUs", "nodes", "a GPU", "images/s", "kept", "batch", "images/s ", "kept ", "95 % from")
    table = new_table("", names, left=())
    for row in plan["scaling"]:
        least = row["share for 95 %"]
        table.add_row(
            f"{row['ranks']:,}", f"{row['nodes']:,}", *_rate(row, "configured batch", "share"), *_rate(row, "same share", "batch"),
            "–" if least is None else str(least),
        )  # fmt: skip
    text = (
        f"By number of GPUs: {plan['batch']:,} samples a step shared by all; then {plan['share']:,} samples for each GPU; how much of "
        "a GPU's rate each keeps, against the fewest GPUs here; then the samples a GPU from which each keeps 95 % of the rate that one "
        "alone has with as many"
    )
    print(f"\n{_wrapped('', text)}")
    console().print(table)


def _rate(row: Mapping[str, Any], key: str, samples: str) -> tuple[str, str, str]:
    if row[key] is None:
        return "–", "no memory" if key in row["no memory"] else "–", "–"
    return f"{row[key][samples]:,}", _images(row[key]["images_per_s"]), f"{row[key]['efficiency']:.0%}"


def _assumptions(plan: Mapping[str, Any]) -> Iterator[str]:
    assumed = plan["assumptions"]
    if plan["rate"].startswith("computed"):
        yield f"convolutions reach {assumed['convolution']:.0%} of what a large product does"
        yield f"an operation is launched in {assumed['launch'] * 1e6:g} µs"
    measured = plan["measured share"] or 0
    if any(row["configured batch"] and _FAR * row["configured batch"]["share"] < measured for row in plan["scaling"]):
        yield f"steps of fewer than {-(-measured // _FAR)} samples a GPU are far from those measured, of {measured}"
    yield f"all-reduces run beside {assumed['overlap']:.0%} of a backward pass"
    yield f"steps vary by {assumed['jitter']:.1%}"
    if assumed["contention"] != 1:
        yield f"ranks of one node slow each other down {assumed['contention']:g} times"
    yield from dict.fromkeys(plan["links"])
    yield f"a node fails every {assumed['node_mtbf'] / 3600:,.7g} h, a restart takes {format_duration(assumed['restart'])}"
    yield "the loader keeps pace; no evaluation is counted"


def show_rehearsal(found: Mapping[str, Any]) -> None:
    """Print what a rehearsed rank did."""
    print(
        f"rank {found['rank']} of {found['ranks']:,} on {found['device']}, {found['share']} samples a step: all as it should be"
    )
    for name, text in _rehearsal_lines(found):
        print(_wrapped(f"{name:13}", text))


def _rehearsal_lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seconds, (first, last) = found["seconds"], found["positions of the first step"]
    steps = seconds["steps"]
    yield "first step", f"positions {first:,} to {last:,}: samples {', '.join(map(str, found['first samples']))}, …"
    yield (
        "data",
        f"{found['shards of these steps']} shard(s) read in {len(steps)} steps, {found['damaged samples']} damaged sample(s)",
    )
    yield (
        "time",
        f"order {_ms(seconds['order'])}, networks {_ms(seconds['networks'])}, steps {', '.join(map(_ms, steps))}",
    )
    yield "memory", ", ".join(f"{format_bytes(size)} of the {where}" for where, size in found["memory bytes"].items())
    waits = [f"{name} {count}" for name, count in found["collectives a step"].items()]
    yield "collectives", f"in a step: {', '.join(waits) or 'none'}"


def _images(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"  # a slow link's rate is not 0


def _ms(seconds: float) -> str:
    return f"{_MILLI * seconds:,.3g} ms" if seconds < 1 else format_duration(seconds)

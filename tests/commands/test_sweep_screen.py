import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from collagan_dist.commands import sweep_screen
from collagan_dist.commands.sweep_screen import Screen, headline
from collagan_dist.report.sweep_data import short_labels
from collagan_dist.sweep.space_spec import Bounds
from collagan_dist.sweep.trial import Trial
from tests.sweep.simulation import RUNGS, plan, with_spec
from tests.sweep.spaces import space


def a_sweep(out, **changes):
    """What Screen reads of a SweepController: three of four trials have begun, two are compared at the first rung."""
    the_plan = plan("asha", 4)
    values = dict.fromkeys(the_plan.space.keys, 1.5)
    trials = []
    for number, (role, psnr) in enumerate((("paper", 20.0), ("search", 21.25), ("search", None))):
        results = {RUNGS[0]: {"psnr": psnr}} if psnr else {}
        trials.append(Trial(number, role, values, 0, 64, results=results, until=RUNGS[0], running=not psnr))
    options = SimpleNamespace(options=SimpleNamespace(out=out))
    facts = {"plan": the_plan, "trials": trials, "out": out, "messages": [], "finished": False, "waiting_reason": "", "waiting": frozenset(),
             "samples_before": 0, "started_at": time.monotonic() - 10, "prepared": options}  # fmt: skip
    return SimpleNamespace(**{**facts, **changes})


def test_the_headline(tmp_path):
    sweep = a_sweep(tmp_path)
    text = headline(sweep)
    assert text.startswith("3 of 4 trials begun: ") and "1 running" in text
    assert f"best: trial 1, psnr 21.25 after {RUNGS[0]:,} samples (the paper's λ: 20)" in text
    assert headline(a_sweep(tmp_path, waiting_reason="no GPU is free")).endswith("waits for room: no GPU is free")
    waits = replace(sweep.trials[2], number=3)  # handed out for a node that is to come
    assert "1 running, 1 waiting for room, 2 paused" in headline(
        a_sweep(tmp_path, trials=[*sweep.trials, waits], waiting={3})
    )
    assert headline(a_sweep(tmp_path, trials=[])) == "0 of 4 trials begun: none runs yet"
    confirm = [*sweep.trials, replace(sweep.trials[2], number=3, role="confirm")]
    assert "4 of 8 trials begun" in headline(a_sweep(tmp_path, trials=confirm, plan=replace(sweep.plan, confirm=2)))


def test_the_headline_of_repeats_under_a_constraint(tmp_path):
    """The mean with its error, the lead with its noise, and how many of them break a constraint; "!" marks the number that does."""
    made = with_spec(plan("asha", 3), repeats=2, constraints={"psnr": Bounds(max=21.5)})
    values, trials = dict.fromkeys(made.space.keys, 1.5), []
    for number, psnr in enumerate((20.0, 20.4, 21.0, 21.2, 22.0, 22.2)):
        first = number - number % 2
        facts = {
            "results": {RUNGS[0]: {"psnr": psnr}},
            "until": RUNGS[0],
            "repeat_of": first if first != number else None,
        }
        trials.append(Trial(number, "search", values, number % 2, 64, **facts))
    sweep = a_sweep(tmp_path, plan=made, trials=trials)
    text = headline(sweep)
    assert (
        "6 of 6 trials begun" in text
        and "; 1 breaks a constraint (means of 2 seeds); best: trial 2, psnr 21.1 ± 0.1 over 2 seeds" in text
    )
    assert "0.9 ± 0.22 better than trial 0, the next" in text and "noise" not in text
    console = Console(width=120, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(sweep_screen._table(sweep, 120))
    table = console.export_text()
    assert "22.2!" in table and "21.2 " in table and "5 seed 1" in table
    rows = [
        line.split()[0] for line in table.splitlines() if " paused " in line and "!" not in line and "begun" not in line
    ]
    assert rows == ["3", "2", "1", "0"]
    none = a_sweep(tmp_path, plan=with_spec(made, constraints={"psnr": Bounds(max=1)}), trials=trials)
    assert "3 break a constraint (means of 2 seeds); best: none keeps the constraints" in headline(none)


def test_a_log_has_messages_at_once_and_the_headline_when_it_changes(tmp_path, capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(sweep_screen.time, "monotonic", lambda: now[0])
    sweep = a_sweep(tmp_path, started_at=990.0)
    with Screen() as screen:
        screen.show(sweep)
        sweep.messages.append("trial 2 [failed]")
        screen.show(sweep)
        now[0] += 100
        screen.show(sweep)  # nothing has changed
    assert capsys.readouterr().err.splitlines() == [headline(sweep), "trial 2 [failed]"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_fits_its_terminal(tmp_path, width):
    """Columns that do not fit are named; no number and no head is cut."""
    sweep = a_sweep(tmp_path)
    searched = space(
        "metric: psnr\nspace: {loss.weights.*.rec: {loguniform: [1, 1000]}, loss.weights.*.adv: {loguniform: [0.1, 10]}, "
        "optim.generator.lr: {loguniform: [1e-5, 0.1]}, optim.discriminators.lr: {loguniform: [1e-5, 0.1]}}"
    )
    sweep.plan = replace(sweep.plan, space=searched)
    sweep.trials = [replace(trial, values=dict.fromkeys(searched.keys, 0.000123456)) for trial in sweep.trials]
    console = Console(width=width, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(sweep_screen._table(sweep, width))
    text = console.export_text()
    assert "…" not in text and all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "21.25" in text and "0.000123" in text
    shown, _, left_out = text.partition("in trials.csv alone: ")
    labels = short_labels(list(searched.keys)).values()
    assert all((label in shown.split()) != (label in left_out.replace(",", " ").split()) for label in labels)


def test_a_terminal_has_a_table(tmp_path):
    console = Console(width=120, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(sweep_screen._table(a_sweep(tmp_path), 120))
    text = console.export_text()
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["1", "paused"] in rows and ["0", "paper"] in rows
    assert "21.25" in text and "1.5" in text and "3 of 4 trials begun" in text
    console.print(sweep_screen._table(a_sweep(tmp_path, finished=True), 120))
    text = console.export_text()
    assert "stopped" in text and "paused" not in text  # as in trials.csv

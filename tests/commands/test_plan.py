import json
import re
import shutil

import pytest
import torch
import yaml

from collagan_dist.runs.metrics_log import median_rate
from tests.commands.conftest import SMALL
from tests.conftest import ROOT

NARROW = [
    word
    for key in ("data.image_size=32", "model.widths.generator=4", "model.widths.discriminator=4")
    for word in ("--set", key)
]


@pytest.mark.usefixtures("no_nohup")
def test_a_plan(collagan, tmp_path):
    out = tmp_path / "plan.png"
    asked = [
        "plan",
        "stable",
        *NARROW,
        "--nodes",
        4,
        "--gpus-per-node",
        8,
        "--set",
        "schedule.batch=2048",
        "--price",
        2.5,
    ]
    plan = json.loads(collagan(*asked, "--json", "--plot", out).out)
    assert out.read_bytes().startswith(b"\x89PNG") and plan["ranks"] == 32 and plan["share"] == 64
    assert plan["rate"].startswith("computed, not measured") and plan["cost"] == pytest.approx(2.5 * plan["gpu hours"])
    assert plan["images_per_s"] * plan["step"]["seconds"] == pytest.approx(2048)
    assert plan["step"]["seconds"] == pytest.approx(
        sum(plan["step"][k] for k in ("compute", "waiting", "exposed", "small"))
    )
    assert plan["training seconds"] == pytest.approx(plan["steps"] * plan["step"]["seconds"]) and plan["steps"] == -(
        -20 * 162_770 // 2048
    )
    alone, *others = plan["scaling"]
    assert alone["same share"]["efficiency"] == 1 and [row["ranks"] for row in others][-1] == 1024
    rates_ = [row["same share"]["efficiency"] for row in plan["scaling"]]
    assert rates_ == sorted(rates_, reverse=True)
    printed = collagan(*asked).out
    assert "Assumed (docs/scaling.md)" in printed and max(map(len, printed.splitlines())) <= 80


@pytest.mark.full  # the whole networks are counted
def test_the_tables_of_the_page_are_what_is_printed(collagan):
    """docs/scaling.md, Where it stops."""
    text = (ROOT / "docs/scaling.md").read_text()
    tables = re.findall(r"^By `collagan (plan [^`]+)`[^\n]*:\n\n((?: {4}.*\n)+)", text, re.MULTILINE)
    assert len(tables) == 2
    for command, table in tables:
        printed = [line.strip() for line in collagan(*command.split()).out.splitlines()]
        rows = [line.strip() for line in table.splitlines()]
        assert rows == printed[printed.index(rows[0]) :][: len(rows)], command


def test_what_cannot_be_planned_is_said(collagan, tmp_path):
    def said(*words):
        result = collagan("plan", "stable", *words)
        assert result.code == 2, result
        return result.err

    assert "64 samples cannot be shared evenly by 48 ranks; set it to 96" in said("--nodes", 6, "--gpus-per-node", 8)
    assert "have ranks 0 to 7" in said("--gpus-per-node", 8, "--rehearse", 8)
    assert "known are h100" in said("--gpu", "v100") and "is no link" in said("--link", "string,ib-ndr")
    assert "give both" in said("--link", "nvlink4", "--nodes", 2)
    assert "not allowed with" in said("--measure", "--measured", "run")
    assert "no run folder" in said("--measured", tmp_path)
    assert "more than 131,072 GPUs" in said("--nodes", 10**6, "--gpus-per-node", 8)
    assert "no batch suits these ranks and this split: 100000 ranks need at least 200000" in said("--nodes", 100_000)
    assert "more than 1,000,000,000,000" in said("--samples", 10**400)
    for option, value in (("--price", 1e308), ("--mtbf", 1e308), ("--mtbf", 1e-320), ("--restart", 1e300)):
        assert f"argument {option}: '{value}' is not a number from " in said(option, value)


def test_a_plot_that_cannot_be_written_is_said_before_anything_is_computed(collagan, tmp_path, monkeypatch):
    monkeypatch.setattr("collagan_dist.plan.work.count_step", None)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name, said in (
        ("plan.jpg", "a plot is a .png or an .svg"),
        ("file/plan.png", "file: cannot be used as a folder"),
        ("folder.png", "folder.png: is a folder, which no file replaces; give --plot the name of a file"),
    ):
        result = collagan("plan", "stable", "--measure", "--plot", tmp_path / name)
        assert result.code == 2 and said in result.err


def test_options_that_would_be_ignored_are_refused(collagan, trained, shards):
    def said(*words):
        result = collagan("plan", *words)
        assert result.code == 2 and not result.out, result
        return result.err

    rehearsed = ("demo", "--data", shards.folder, "--rehearse", 0)
    assert "it takes no --price, --plot;" in said(*rehearsed, "--plot", "x.png", "--price", 3)
    given = {
        "gpu": "h100",
        "measured": trained,
        "link": "1:1,1:1",
        "assume": "jitter=0",
        "samples": 9,
        "mtbf": 1,
        "restart": 1,
    }
    for option, value in given.items():
        assert f"--rehearse: a rehearsal predicts nothing, so it takes no --{option};" in said(
            *rehearsed, f"--{option}", value
        )
    assert "it takes no --measure;" in said(*rehearsed, "--measure")
    assert "--data, --samples: " in said("demo", "--data", shards.folder, "--samples", 10)
    assert "config.yaml names a data set (data.shards)" in said(trained / "config.yaml", "--samples", 10)
    measured = (trained / "config.yaml", "--measured", trained)
    for name in ("launch=1e-5", "convolution=1"):
        assert f"--assume {name}: changes nothing where the rate is measured" in said(*measured, "--assume", name)


@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
def test_what_is_accepted_gives_finite_numbers(collagan, end):
    """The ends of all ranges at once: the fastest with the fastest links, the slowest with the slowest."""
    ends = {
        "--mtbf": (1e7, 0.01), "--restart": (0.001, 1e7), "--price": (1e-6, 1e9), "--nodes": (1, 256), "--gpus-per-node": (1, 512),
        "--samples": (262_144, 10**12), "--link": ("1e5:0,1e5:0", "0.001:1e6/node,0.001:1e6/node"),
    }  # fmt: skip
    assumed = {"convolution": (0.01, 1), "launch": (0, 1), "overlap": (0, 1), "jitter": (0, 1), "contention": (1, 100)}
    words = [word for option, values in ends.items() for word in (option, values[end])]
    words += [word for name, values in assumed.items() for word in ("--assume", f"{name}={values[end]}")]
    result = collagan("plan", "stable", *NARROW, *words, "--set", "schedule.batch=262144", "--json")
    plan = json.loads(result.out, parse_constant=pytest.fail)
    assert min(plan["images_per_s"], plan["step"]["seconds"], plan["efficiency"]) > 0


def test_a_cpu_has_no_links_of_gpus(collagan, trained, shards, tmp_path):
    """Inside a node they are those of gloo; between nodes they must be given."""
    asked = ["plan", trained / "config.yaml", "--data", shards.folder, "--gpus-per-node", 2, "--measured", trained]
    default, given = (
        json.loads(collagan(*asked, *more, "--json").out) for more in ((), ("--link", "loopback,loopback"))
    )
    assert default["step"] == given["step"] and default["scaling"] == given["scaling"]
    assert default["links"][0].startswith("inside and between nodes loopback")
    assert default["links"][0].endswith("no --link was given") and not given["links"][0].endswith("was given")
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    record = json.loads((run / "world.json").read_text())
    ranks = [record["ranks"][0] | {"host": host} for host in ("one", "two")]
    (run / "world.json").write_text(json.dumps(record | {"ranks": ranks}))
    for words, where in ((("--nodes", 2), "--nodes 2"), (("--measured", run), "it ran on 2 nodes")):
        result = collagan(*asked, *words)
        assert result.code == 2 and f"{where}: the rate is that of a CPU" in result.err and "--link" in result.err
    computed = json.loads(collagan("plan", "stable", *NARROW, "--json").out)["links"]
    assert [one.split()[2] for one in computed] == ["nvlink4", "ib-ndr"]


def test_a_measured_run(collagan, trained, shards):
    """Alone the plan is the measurement; it is refused for steps of another kind."""
    asked = [
        "plan",
        trained / "config.yaml",
        "--data",
        shards.folder,
        "--link",
        "loopback,loopback",
        "--measured",
        trained,
        "--json",
    ]
    plan = json.loads(collagan(*asked).out)
    assert plan["images_per_s"] == pytest.approx(median_rate(trained)) and "measured by" in plan["rate"]
    assert plan["samples"] == shards.samples("train") and plan["assumptions"]["overlap"] == 0  # a CPU
    wider = collagan(*asked, "--set", "model.widths.generator=8")
    assert wider.code == 2 and "model.widths.generator: 4 -> 8" in wider.err


def test_a_measured_run_knows_the_memory_of_its_gpus(collagan, trained, shards, tmp_path):
    """More samples a GPU than it has memory for have no rate."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    asked = ["plan", run / "config.yaml", "--data", shards.folder, "--link", "1:20,1:20", "--measured", run, "--json"]
    peak = json.loads(collagan(*asked).out)["memory"]["peak"]
    for memory, fits in ((2 * peak, True), (peak // 2, False)):
        record = json.loads((run / "world.json").read_text())
        record["ranks"][0]["memory_bytes"] = memory
        (run / "world.json").write_text(json.dumps(record))
        plan = json.loads(collagan(*asked).out)
        assert plan["device memory"] == memory and (plan["scaling"][0]["same share"] is not None) == fits


def test_a_rehearsal(collagan, shards):
    """The last rank of four, with its own samples."""
    asked = ["plan", "demo", *SMALL, "--data", shards.folder, "--nodes", 2, "--gpus-per-node", 2, "--rehearse", 3]
    done = collagan(*asked)
    assert done.code == 0 and done.out.startswith("rank 3 of 4 on "), done.err
    assert max(map(len, done.out.splitlines())) <= 80 and "positions 6 to 7: samples " in done.out
    found = json.loads(collagan(*asked, "--json").out)
    assert f"samples {', '.join(map(str, found['first samples']))}, …" in done.out and found["share"] == 2


@pytest.mark.parametrize(("sync_bn", "contention"), [(False, 1), (True, 6)])
def test_a_run_of_several_ranks_gives_what_one_computes(collagan, trained, shards, tmp_path, sync_bn, contention):
    """Planned for the cluster that it ran on, with all that its ranks waited for, the plan is the measurement."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    record = json.loads((run / "world.json").read_text())
    (run / "world.json").write_text(json.dumps(record | {"ranks": 2 * record["ranks"][:1]}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["runtime"]["sync_bn"] = sync_bn
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    asked = ["plan", run / "config.yaml", "--data", shards.folder, "--gpus-per-node", 2, "--link", "1:20,1:20"]
    plan = json.loads(collagan(*asked, "--assume", f"contention={contention}", "--measured", run, "--json").out)
    assert plan["images_per_s"] == pytest.approx(median_rate(run)) and plan["step"]["small"] > 0


@pytest.mark.full
def test_a_short_measurement_here(collagan):
    plan = json.loads(collagan("plan", "demo", *SMALL, "--measure", "--json").out)
    assert plan["assumptions"]["overlap"] == (0.8 if torch.cuda.is_available() else 0)
    assert plan["rate"].startswith("measured here") and 1 < plan["images_per_s"] < 1e5

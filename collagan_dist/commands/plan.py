"""`collagan plan`: what a configuration would take on a cluster, and one rank of it rehearsed."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collagan_dist.commands.arguments import non_negative_int, number_within, positive_int
from collagan_dist.errors import ConfigError

if TYPE_CHECKING:
    from collagan_dist.config.tree import Config
    from collagan_dist.plan.cost_model import Cluster
    from collagan_dist.plan.hardware import GPU
    from collagan_dist.plan.prediction import Planner, Rate
    from collagan_dist.plan.rates import MeasuredRun

HELP = "predict time, memory, efficiency, goodput and cost on a cluster; or rehearse one rank of it"
EXAMPLE = """collagan plan stable --nodes 4 --gpus-per-node 8 --gpu h100 --set schedule.batch=2048
         collagan plan stable --nodes 2 --gpus-per-node 8 --measured runs/first --link nvlink4,100gbe
         collagan plan stable --nodes 128 --gpus-per-node 8 --data packed/celeba --rehearse 1023 --set schedule.batch=65536"""
_CELEBA = 162_770  # pictures of CelebA's split for training
# 419 interruptions that nobody had planned in 54 days of 2,048 nodes (The Llama 3 Herd of Models, arXiv 2407.21783).
_NODE_MTBF_HOURS, _RESTART_SECONDS = 6300.0, 120.0
# More than any cluster has, and so that every number of a plan stays finite.
_MOST_RANKS, _MOST_SAMPLES = 131_072, 10**12
# Options of a prediction, which a rehearsal does not read.
_PREDICTS = ("gpu", "measured", "measure", "link", "assume", "samples", "mtbf", "restart", "price", "plot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="preset name or YAML file")
    parser.add_argument("--nodes", type=positive_int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--gpus-per-node", type=positive_int, default=1, metavar="G", help="default: 1")
    parser.add_argument("--model", metavar="NAME", help="as in train")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change a key of the configuration")
    parser.add_argument("--data", metavar="SHARDS", help="the data set, for its number of samples and for --rehearse")
    parser.add_argument(
        "--samples",
        type=positive_int,
        metavar="N",
        help=f"samples of an epoch, without --data (default: CelebA's {_CELEBA:,})",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--gpu", metavar="NAME", help="h100 (default), h200, a100: by their data sheets")
    source.add_argument("--measured", metavar="RUN", help="the rate of a run of this configuration, by its log")
    source.add_argument("--measure", action="store_true", help="measure some steps on this machine's device")
    parser.add_argument(
        "--link",
        metavar="INSIDE,BETWEEN",
        help="links inside a node and between nodes: nvlink4 nvlink3 pcie4 ib-ndr ib-hdr 100gbe 25gbe loopback, or GB/S:MICROSECONDS, "
        "with /node behind it where the GPUs of a node share one card (default: those of --gpu; with a CPU's rate loopback, "
        "and none for several nodes)",
    )
    parser.add_argument(
        "--assume",
        action="append",
        default=[],
        metavar="NAME=X",
        help="convolution, launch, overlap, jitter or contention (docs/scaling.md)",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mtbf",
        type=number_within(0.01, 1e7),
        metavar="HOURS",
        help=f"between failures of a node (default: {_NODE_MTBF_HOURS:g})",
    )
    parser.add_argument(
        "--restart", type=number_within(0.001, 1e7), metavar="SECONDS",
        help=f"from a failure to the next new step (default: {_RESTART_SECONDS:g})",
    )  # fmt: skip
    parser.add_argument("--price", type=number_within(0.000001, 1e9), metavar="P", help="of a GPU for an hour")
    parser.add_argument("--plot", metavar="FILE", help="write the plot for 1 to 1,024 GPUs, .png or .svg")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--rehearse",
        type=non_negative_int,
        metavar="RANK",
        help="build this rank with its real data and do its first steps here, instead",
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands import plan_screen
    from collagan_dist.commands.progress import busy
    from collagan_dist.config.load import load_config

    _refuse_usage(args)
    config = load_config(args.config, args.model, args.set, args.data)
    with busy("planning", not args.json):
        found = _rehearsal(args, config) if args.rehearse is not None else _prediction(args, config)
    if args.json:
        print(json.dumps(found, allow_nan=False))
    elif args.rehearse is not None:
        plan_screen.show_rehearsal(found)
    else:
        plan_screen.show_plan(found)


def _refuse_usage(args: argparse.Namespace) -> None:
    """Raise ConfigError for options of which one would be ignored, and for numbers that no cluster and no data set has."""
    if args.rehearse is not None and (given := [f"--{name}" for name in _PREDICTS if getattr(args, name)]):
        raise ConfigError(
            f"--rehearse: a rehearsal predicts nothing, so it takes no {', '.join(given)}; give one or the other"
        )
    if args.data and args.samples:
        raise ConfigError("--data, --samples: the data set says how many samples it has; give one of the two")
    if args.nodes * args.gpus_per_node > _MOST_RANKS:
        raise ConfigError(
            f"--nodes {args.nodes} --gpus-per-node {args.gpus_per_node}: more than {_MOST_RANKS:,} GPUs, the most that are planned; "
            "give fewer"
        )
    if (args.samples or 0) > _MOST_SAMPLES:
        raise ConfigError(
            f"--samples {args.samples}: more than {_MOST_SAMPLES:,}, the most that are planned; give fewer"
        )


def _rehearsal(args: argparse.Namespace, config: Config) -> dict[str, Any]:
    from collagan_dist.data.shards.quick_check import open_shards
    from collagan_dist.plan.rehearsal import rehearse
    from collagan_dist.types import World

    size, rank = args.nodes * args.gpus_per_node, args.rehearse
    if rank >= size:
        raise ConfigError(f"--rehearse {rank}: {args.nodes} nodes of {args.gpus_per_node} have ranks 0 to {size - 1}")
    node, local = divmod(rank, args.gpus_per_node)
    world = World(rank, size, local, args.gpus_per_node, node)
    return rehearse(config, world, open_shards(config))


def _prediction(args: argparse.Namespace, config: Config) -> dict[str, Any]:
    from collagan_dist import files
    from collagan_dist.config.load import model_label
    from collagan_dist.data.loading.order import check_batch
    from collagan_dist.plan.chart import write_chart
    from collagan_dist.plan.prediction import Losses
    from collagan_dist.report.vega import check_picture_name
    from collagan_dist.types import World

    if args.plot:
        check_picture_name(Path(args.plot))
        files.check_file_writable(Path(args.plot), "--plot")
    source = _source(args)
    _refuse_unused(args, source)
    cluster = _cluster(args, source)
    samples = _samples(args, config)
    # Before anything is counted or measured.
    check_batch(samples, config.schedule.batch, World(size=cluster.size), config.runtime.accumulate)
    losses = Losses(3600 * (args.mtbf or _NODE_MTBF_HOURS), args.restart or _RESTART_SECONDS, args.price)
    found = _planner(args, config, cluster, source).plan(cluster, samples, losses)
    links = _links(cluster, given=bool(args.link))
    found = {"configuration": args.config, "model": model_label(config.model), **found, "links": links}
    if args.plot:
        write_chart(found, Path(args.plot))
    return found


@dataclass(frozen=True)
class _RateSource:
    """What the rate is taken from: a type of device, and a run, or else a data sheet where nothing is measured."""

    device: str
    run: MeasuredRun | None
    gpu: GPU


def _source(args: argparse.Namespace) -> _RateSource:
    from collagan_dist.distributed import devices
    from collagan_dist.plan import rates
    from collagan_dist.plan.hardware import find_gpu
    from collagan_dist.types import World

    run = rates.read_run(Path(args.measured)) if args.measured else None
    device = run.ranks[0].device if run else devices.pick_device(World()).type if args.measure else "cuda"
    return _RateSource(device, run, find_gpu(args.gpu or "h100"))


def _refuse_unused(args: argparse.Namespace, source: _RateSource) -> None:
    """Raise ConfigError for an assumption that a measured rate does not rest on."""
    if not (args.measured or args.measure):
        return
    no_launches = args.measure or source.device == "cpu" or (source.run and source.run.config.runtime.cuda_graph)
    unused = ("convolution", "launch") if no_launches else ("convolution",)
    for text in args.assume:
        if text.partition("=")[0] in unused:
            option = "--measure" if args.measure else "--measured"
            raise ConfigError(f"--assume {text}: changes nothing where the rate is measured ({option}); leave it out")


def _cluster(args: argparse.Namespace, source: _RateSource) -> Cluster:
    """Return the planned cluster. Raises ConfigError for several nodes of CPUs without a link between them."""
    from collagan_dist.plan.cost_model import Cluster
    from collagan_dist.plan.hardware import find_links

    usual = f"{source.gpu.inside},{source.gpu.between}"
    if source.device == "cpu" and not args.link:
        hosts = len({rank.host for rank in source.run.ranks}) if source.run else 1
        if max(args.nodes, hosts) > 1:
            where = (
                f"--nodes {args.nodes}" if args.nodes > 1 else f"--measured {args.measured}: it ran on {hosts} nodes"
            )
            raise ConfigError(
                f"{where}: the rate is that of a CPU, for which no link between nodes is assumed; give --link INSIDE,BETWEEN, like "
                "loopback,25gbe"
            )
        usual = "loopback,loopback"
    return Cluster(args.nodes, args.gpus_per_node, *find_links(args.link or usual))


def _links(cluster: Cluster, given: bool) -> list[str]:
    """Return which links the plan is for, in words."""
    default = "" if given else ", since no --link was given"
    if cluster.inside == cluster.between:
        return [f"inside and between nodes {cluster.inside.name} ({cluster.inside.source}){default}"]
    return [
        f"{where} nodes {link.name} ({link.source}){default}"
        for where, link in (("inside", cluster.inside), ("between", cluster.between))
    ]


def _planner(args: argparse.Namespace, config: Config, cluster: Cluster, source: _RateSource) -> Planner:
    from collagan_dist.plan import rates
    from collagan_dist.plan.cost_model import Assumptions
    from collagan_dist.plan.prediction import Planner
    from collagan_dist.plan.work import count_step

    assumed, work = Assumptions.parse(args.assume, source.device), count_step(config)
    rate: Rate
    if source.run:
        rate = rates.rate_of_run(source.run, config, work, cluster, assumed)
    elif args.measure:
        rate = rates.measured_rate(config, config.schedule.batch // cluster.size)
    else:
        rate = rates.stated_rate(config, work, source.gpu, assumed)
    return Planner(config, rate, assumed, work)


def _samples(args: argparse.Namespace, config: Config) -> int:
    from collagan_dist.data.shards.manifest import read_manifest

    if config.data.shards is None:
        return args.samples or _CELEBA
    if args.samples:
        raise ConfigError(
            f"--samples: {args.config} names a data set (data.shards), which says how many samples it has; leave one out "
            "(--set data.shards=null)"
        )
    return read_manifest(config.data.shards).samples(config.data.split)

"""On a GPU: the same batches, decoding and losses as on the CPU."""

import shutil

import numpy as np
import pytest
import torch

from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.models.registry import build_networks
from collagan_dist.models.step import Step
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.data.packed import damage_sample
from tests.training.one_rank import setup
from tests.training.small import equal, small, weights

pytestmark = pytest.mark.gpu


def test_mixed_decoding_is_cpu_decoding(shards):
    split = SplitReader(shards, "train")
    samples = [split.read(n) for n in range(8)]
    cpu, gpu = (
        Decoder(8, 88, True, False, 2, d)(samples, np.zeros((8, 4)))
        for d in (torch.device("cpu"), torch.device("cuda", 0))
    )
    assert (cpu[0].int() - gpu[0].cpu().int()).abs().max() <= 2
    assert torch.equal(cpu[1], gpu[1].cpu())


def test_batches_and_losses_are_those_of_the_cpu(shards):
    found = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        part = setup(shards, device, hole__kind="noise")
        loader = part.loader("train", part.view(training=True), 4)
        batch = next(loader.batches(iter([(np.arange(4), np.zeros(4, np.int64))])))
        networks = build_networks(part.config, part.engine, part.tasks)
        values = Step(part.config, part.engine, part.tasks, networks, 10)(batch, 0).values
        found.append((batch, {name: value.item() for name, value in values.items()}))
    (cpu, cpu_values), (gpu, gpu_values) = found
    assert torch.equal(cpu.hole_B1HW, gpu.hole_B1HW.cpu()) and torch.equal(cpu.keys_B2, gpu.keys_B2.cpu())
    assert torch.equal(cpu.label_BHW, gpu.label_BHW.cpu())
    assert (cpu.image_B3HW - gpu.image_B3HW.cpu()).abs().max() < 3 / 127.5
    assert gpu_values == pytest.approx(cpu_values, rel=2e-3)


def test_a_damaged_sample_is_replaced_as_on_the_cpu(shards, tmp_path):
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))
    for number, how in ((3, "jpg"), (17, "seg.png"), (40, "json")):
        damage_sample(copy, "train", number, how)
    shown = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        part = setup(copy, device)
        loader = part.loader("train", part.view(training=True), 8)
        plan = [(np.arange(first, first + 8), np.zeros(8, np.int64)) for first in (0, 16, 40, 0)]
        shown.append([batch.ids_B.tolist() for batch in loader.batches(iter(plan))])
        assert [one.number for one in loader.damaged] == [3, 17, 40]
    assert shown[0] == shown[1]


def test_training_continues_on_the_gpu(shards, tmp_path):
    for name, stops in (("whole", (7,)), ("parts", (3, 7))):
        for steps in stops:
            train(small(shards.folder, schedule__steps=steps, deterministic=True), tmp_path / name, World())
    assert equal(weights(tmp_path / "whole", 7), weights(tmp_path / "parts", 7))

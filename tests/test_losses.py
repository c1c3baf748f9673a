import numpy as np
import pytest
import torch

from collagan_dist import losses
from collagan_dist.config.load import load_config
from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.inpainting import composite
from tests.tasks.batches import batch


def test_adversarial_terms():
    torch.manual_seed(0)
    real, fake = torch.randn(4, 1, 4, 4) * 3, torch.randn(4, 1, 4, 4) * 3
    d_real, d_fake = (1 / (1 + np.exp(-logits.double().numpy())) for logits in (real, fake))
    expected = -(np.log(d_real).mean() + np.log(1 - d_fake).mean()) / 2
    assert losses.discriminator_term(real, fake).item() == pytest.approx(expected, rel=1e-5)
    weighed = -(np.log(d_real).mean() + 0.3 * np.log(1 - d_fake).mean()) / 2
    assert losses.discriminator_term(real, fake, 0.3).item() == pytest.approx(weighed, rel=1e-5)
    assert losses.generator_term(fake, "ns").item() == pytest.approx(-np.log(d_fake).mean(), rel=1e-5)
    assert losses.generator_term(fake, "minmax").item() == pytest.approx(np.log(1 - d_fake).mean(), rel=1e-5)
    assert losses.generator_term(fake, "printed").item() == pytest.approx((1 - np.log(d_fake)).mean(), rel=1e-5)


def test_large_logits_stay_finite():
    big = torch.full((1, 1, 2, 2), 200.0)
    assert torch.isfinite(losses.discriminator_term(-big, big)) and torch.isfinite(losses.generator_term(-big, "ns"))


def test_accuracy_counts_real_and_fake_alike():
    real, fake = torch.tensor([1.0, -1.0, 2.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert losses.accuracy(real, fake).item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert losses.accuracy(real.abs(), -fake.abs()).item() == 1


def test_several_tasks_at_once_are_each_task():
    torch.manual_seed(0)
    real, fake = torch.randn(3, 20), torch.randn(3, 20)
    weight = torch.tensor([1.0, 0.3, 0.5])
    for number in range(3):
        one = losses.discriminator_term(real[number], fake[number], weight[number])
        assert losses.discriminator_term(real, fake, weight, dim=1)[number].item() == pytest.approx(one.item())
        assert losses.accuracy(real, fake, dim=1)[number] == losses.accuracy(real[number], fake[number])
        for form in losses.GENERATOR_TERMS:
            one = losses.generator_term(fake[number], form)
            assert losses.generator_term(fake, form, dim=1)[number].item() == pytest.approx(one.item())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("M_i", {"inpainting": (1, 100)}),
        ("M_s", {"segmentation": (1, 1000)}),
        ("M_d", {"landmarks": (1, 1000)}),
        ("M_id", {"inpainting": (0.8, 100), "landmarks": (0.2, 200)}),
        ("M_is", {"inpainting": (0.8, 100), "segmentation": (0.2, 200)}),
        ("M_isd", {"inpainting": (0.8, 100), "segmentation": (0.1, 200), "landmarks": (0.1, 200)}),
        ("M*_isd", {"inpainting": (0.8, 100), "segmentation": (0.1, 200), "landmarks": (0.1, 200)}),
    ],
)
def test_lambda_table_of_section_4_2(model, expected):
    config = load_config("stable", model)
    assert {task: (w.adv, w.rec) for task, w in config.loss.weights.items()} == expected
    assert sum(w.adv for w in config.loss.weights.values()) == pytest.approx(1)
    assert config.model.concentrated == (model == "M*_isd")
    assert set(TASK_WEIGHTS) == {"inpainting", "segmentation", "landmarks"}


def tasks(*sets: str) -> dict:
    return build_tasks(load_config("stable", "M*_isd", ["data.image_size=32", *sets]))


@pytest.mark.parametrize("kind", ["block", "pattern", "noise"])
def test_eq_5_keeps_the_context_bit_for_bit(kind):
    b = batch(kind=kind)
    output = torch.randn_like(b.image_B3HW)
    done = composite(output, b)
    outside = ~b.hole_B1HW.expand_as(done)
    assert torch.equal(done[outside], b.input_B3HW[outside]) and torch.equal(done[outside], b.image_B3HW[outside])
    assert torch.equal(done[~outside], output[~outside])
    assert torch.equal(tasks()["inpainting"].discriminator_input(output, b), done)


@pytest.mark.parametrize("over", ["all", "hole"])
def test_eq_6_has_no_gradient_outside_the_hole(over):
    b = batch()
    output = torch.randn_like(b.image_B3HW, requires_grad=True)
    task = tasks(f"loss.inpainting_over={over}")["inpainting"]
    loss = task.reconstruction(output, b, b.image_B3HW)
    loss.backward()
    outside = ~b.hole_B1HW.expand_as(output)
    assert (output.grad[outside] == 0).all() and (output.grad[~outside] != 0).all()
    m = (~b.hole_B1HW).double().numpy()  # the paper's M
    difference = np.abs(b.image_B3HW.numpy() * (1 - m) - output.detach().numpy() * (1 - m))
    in_holes = (difference.sum((1, 2, 3)) / (3 * (1 - m).sum((1, 2, 3)))).mean()
    assert loss.item() == pytest.approx(difference.mean() if over == "all" else in_holes, rel=1e-5)


def test_without_concentration_all_pixels_count():
    b = batch()
    output = torch.randn_like(b.image_B3HW)
    task = tasks("model.concentrated=false")["inpainting"]
    expected = (output - b.image_B3HW).abs().mean().item()
    assert task.reconstruction(output, b, b.image_B3HW).item() == pytest.approx(expected)
    assert task.discriminator_input(output, b) is output

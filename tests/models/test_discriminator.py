import pytest
import torch

from collagan_dist.models.discriminator import Discriminator, Discriminators, SharedDiscriminator

CHANNELS = {"inpainting": 3, "segmentation": 11, "landmarks": 5}


def test_real_and_fake_do_not_share_batch_statistics():
    torch.manual_seed(0)
    both, single = Discriminators({"a": 3}, 4), Discriminators({"a": 3}, 4)
    single.load_state_dict(both.state_dict())
    x, real, fake = (torch.randn(4, 3, 64, 64) for _ in range(3))
    together = both(x, {"a": real}, {"a": fake * 5})
    assert torch.equal(together[0]["a"], single(x, {"a": real})[0]["a"])
    assert torch.equal(together[1]["a"], single(x, {"a": fake * 5})[0]["a"])


@pytest.mark.parametrize(("patch", "logits"), [(94, 8), (70, 30)])
def test_what_a_discriminator_s_logit_sees(patch, logits):
    """94 and 70 pixels of the picture, counted by what moves a logit in the middle."""
    discriminator = Discriminator(3, 2, patch).eval()
    picture = torch.zeros(1, 6, 256, 256, requires_grad=True)
    out = discriminator(picture)
    assert out.shape == (1, 1, logits, logits)
    out[0, 0, logits // 2, logits // 2].backward()
    seen = picture.grad.abs().sum(dim=(0, 1))
    assert (seen.sum(0) != 0).sum() == patch and (seen.sum(1) != 0).sum() == patch


def test_the_shared_discriminator_sees_every_task():
    torch.manual_seed(0)
    shared = SharedDiscriminator(CHANNELS, 4).eval()
    x = torch.randn(2, 3, 32, 32)
    pictures = {task: torch.randn(2, count, 32, 32) for task, count in CHANNELS.items()}
    (plain,) = shared(x, pictures)
    assert set(plain) == {"shared"} and plain["shared"].shape == (2, 1, 1, 1)
    for task in CHANNELS:
        (changed,) = shared(x, {**pictures, task: pictures[task] + 1})
        assert not torch.equal(changed["shared"], plain["shared"]), task
    reordered = dict(reversed(pictures.items()))
    assert torch.equal(shared(x, reordered)[0]["shared"], plain["shared"])

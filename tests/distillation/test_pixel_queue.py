"""The pixel queue: real pixels, oldest out first, never half full."""

import pytest
import torch

from rdd_edge.distillation.losses.pixel_queue import PixelQueue


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_entry_is_one_pixel_of_one_map():
    maps = torch.rand(4, 3, 2, 2)
    queue = PixelQueue(100, 3)
    queue.push(maps, 2, draws())
    pixels = torch.nn.functional.normalize(maps.permute(0, 2, 3, 1).reshape(4, 4, 3), dim=-1)
    assert len(queue) == 8
    for place, entry in enumerate(queue.entries[:8]):
        match = (pixels - entry).abs().amax(-1) < 1e-6  # (image, pixel)
        assert match.sum() == 1
        assert match[place // 2].any()
    assert not torch.equal(queue.entries[0], queue.entries[1])  # without repetition within an image


def test_the_oldest_goes_first_across_the_wrap():
    queue = PixelQueue(5, 2)
    for angle in range(8):
        vector = torch.tensor([torch.cos(torch.tensor(angle / 8.0)), torch.sin(torch.tensor(angle / 8.0))])
        queue.push(vector.view(1, 2, 1, 1), 1, draws())
    angles = sorted(round(float(torch.atan2(e[1], e[0])) * 8) for e in queue.entries)
    assert angles == [3, 4, 5, 6, 7]


def test_a_push_larger_than_the_queue_keeps_the_last():
    queue = PixelQueue(3, 2)
    maps = torch.tensor([[1.0, k] for k in range(10)]).view(10, 2, 1, 1)
    queue.push(maps, 1, draws())
    ratios = sorted(round(float(e[1] / e[0])) for e in queue.entries)
    assert ratios == [7, 8, 9]


def test_nothing_is_drawn_before_there_is_enough_and_then_no_entry_twice():
    queue = PixelQueue(10, 4)
    queue.push(torch.rand(5, 4, 1, 1), 1, draws())
    assert queue.draw(6, draws()) is None
    drawn = queue.draw(5, draws())
    assert drawn is not None
    assert len(torch.unique(drawn, dim=0)) == 5
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("pushes", [1, 3])
def test_state_and_load_are_a_round_trip(pushes):
    queue, other = PixelQueue(7, 3), PixelQueue(7, 3)
    for k in range(pushes):
        queue.push(torch.rand(3, 3, 2, 2), 1, draws(k))
    other.load({name: tensor.clone() for name, tensor in queue.state().items()})
    queue.push(torch.ones(1, 3, 1, 1), 1, draws(9))
    other.push(torch.ones(1, 3, 1, 1), 1, draws(9))
    assert torch.equal(queue.entries, other.entries)
    assert queue.pushed == other.pushed

"""DeepCache's key steps and what its plug-in runs between them, by hand."""

from __future__ import annotations

import pytest

from hgc_video.errors import PresetError
from hgc_video.plan.graph import BlockGraph, Layer
from hgc_video.plan.policies.deepcache import DeepCache
from tests.plan.policies.test_policies import add


def two_by_three():
    """A model whose two down blocks and two up blocks have three layers each, with motion modules."""
    layers = [Layer("unet.conv_in", "conv_in", (), 2, 8)]
    last, depths = "unet.conv_in", []
    for block in range(2):
        for k in range(3):
            last = add(layers, f"unet.down_blocks.{block}", k, last)
    last = add(layers, "unet.mid_block", 0, last)
    for block in range(2):
        for k in range(3):
            depths.append(last)
            last = add(layers, f"unet.up_blocks.{block}", k, last)
    layers.append(Layer("unet.conv_out", "conv_out", (last,), 2, 8))
    return BlockGraph(tuple(layers), tuple(depths[::-1]), 2, 4, (3, 3))


@pytest.mark.parametrize(
    ("branch", "reused", "motions"),
    [
        # The tensor that is reused, and the motion modules that run on kept inputs: those before it in its up
        # block, and those behind the skip in the down block on the other side.
        (0, "up_blocks.1.attentions.1", {"up_blocks.1.0"}),
        (1, "up_blocks.1.attentions.0", {"down_blocks.0.1", "down_blocks.0.2"}),
        (2, "up_blocks.0.attentions.2", {"up_blocks.0.0", "up_blocks.0.1", "down_blocks.0.2"}),
        (3, "up_blocks.0.attentions.1", {"up_blocks.0.0"}),
        (4, "up_blocks.0.attentions.0", {"down_blocks.1.1", "down_blocks.1.2"}),
        (5, "mid_block.attentions.0", {"down_blocks.1.2"}),
    ],
)
def test_what_a_branch_reuses_and_which_motion_modules_run_again(branch, reused, motions):
    _, step = DeepCache(interval=2, branch=branch)(two_by_three(), 2).steps
    named = [name.rpartition(".") for name in sorted(motions)]
    assert step.always_compute == {f"unet.{block}.motion_modules.{k}" for block, _, k in named}
    inputs = {f"unet.{block}.attentions.{k}" for block, _, k in named}
    assert step.reuse == {f"unet.{reused}", *inputs}
    assert step.label == f"depth {branch + 1}"


@pytest.mark.parametrize(
    ("steps", "interval", "center", "power", "keys"),
    [
        # From 0 on: the squares of 0, 1.58 and 3.16, cut to whole numbers, without the last.
        (10, 5, 0, 2, [0, 2]),
        # At 1.4 and 1.2 steps coincide; at 1.38 and 1.18, which are tried next, none do.
        (50, 3, 0, 1.4, [0, 1, 2, 4, 6, 9, 11, 14, 17, 20, 24, 27, 30, 34, 38, 42, 45]),
        (25, 2, 15, 1.2, [0, 3, 5, 7, 9, 11, 13, 14, 15, 17, 19, 21, 22]),
    ],
)
def test_key_steps_around_a_center_that_need_another_power(steps, interval, center, power, keys):
    assert DeepCache(interval=interval, pow=power, center=center).key_steps(steps) == keys


def test_a_center_around_which_key_steps_coincide_at_every_power_is_refused():
    with pytest.raises(PresetError, match="no 15 different key steps of 30 around 15; use another"):
        DeepCache(interval=2, pow=1.2, center=15).key_steps(30)


def test_branches_that_the_model_has():
    with pytest.raises(PresetError, match="this model has branches 0 to 5, got 6"):
        DeepCache(branch=6)(two_by_three(), 2)
    assert DeepCache(branch=5)(two_by_three(), 2).lossless is False

"""A model's call by name: its prompt's half, residuals that nobody reads, the latents among channels."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from hgc_video.cache.model_calls import (
    RESIDUALS,
    bound,
    drop_residuals,
    latents_of,
    prediction_of,
    prompt_half,
    prompt_residuals,
    sum_residuals,
    transforms_skips,
    with_prediction,
)
from tests.tiny_models import image_unet

DOWN, MID = RESIDUALS


class Without:
    """A model that knows no residuals."""

    def forward(self, sample, timestep, encoder_hidden_states=None, *, return_dict=True):
        """Is not called."""


class With(Without):
    """One that knows those of the skips."""

    def forward(self, sample, timestep, down_block_additional_residuals=None):
        """Is not called."""


def bound_to(model, *args, **kwargs):
    return bound(inspect.signature(model.forward), args, kwargs)


def test_a_call_is_told_by_name_whatever_was_given_by_place():
    assert bound_to(Without, 1, 2, return_dict=False) == {
        "sample": 1, "timestep": 2, "return_dict": False,
    }  # fmt: skip
    assert bound_to(With, 1, 2, 3) == {"sample": 1, "timestep": 2, DOWN: 3}


def test_residuals_are_told_too_where_the_model_does_not_know_them():
    given = {DOWN: (3,), MID: 4}
    for model in (Without, With):
        assert bound_to(model, 1, timestep=2, **given) == {"sample": 1, "timestep": 2, **given}
    assert bound_to(Without, 1, 2, **{MID: 4}) == {"sample": 1, "timestep": 2, MID: 4}
    with pytest.raises(TypeError, match="conditioning"):
        bound_to(Without, 1, 2, conditioning=3)


def rows(*numbers):
    return torch.tensor(numbers)[:, None]


@pytest.mark.parametrize(
    "name",
    [
        "sample", "timestep", "encoder_hidden_states", "controlnet_cond", "timestep_cond",
        "added_time_ids", "added_cond_kwargs", "conditioning_mask",
    ],
)  # fmt: skip
def test_what_comes_doubled_is_left_for_the_prompt(name):
    call = {name: rows(1, 2, 3, 4, 5, 6)}
    prompt_half(call)
    assert list(call) == [name] and call[name].flatten().tolist() == [4, 5, 6]


def test_a_timestep_of_every_row_is_left_for_the_prompts_rows():
    call = {"timestep": torch.tensor([900, 500])}
    prompt_half(call)
    assert call["timestep"].tolist() == [500]


def test_what_does_not_come_doubled_is_left_as_it_is():
    given = {
        "sample": rows(1, 2, 3), "timestep": torch.tensor(900), "encoder_hidden_states": None,
        "conditioning_scale": torch.tensor([0.5, 0.25]), DOWN: (rows(1, 2),),
    }  # fmt: skip
    call = dict(given)
    prompt_half(call)
    assert call == given


def test_groups_are_halved_one_by_one_and_stay_what_they_are():
    call = {
        "added_cond_kwargs": {"time_ids": rows(1, 2), "image_embeds": [rows(3, 4), (rows(5, 6),)]},
        "controlnet_cond": [rows(7, 8), rows(9, 10)],
    }
    prompt_half(call)
    added, hints = call["added_cond_kwargs"], call["controlnet_cond"]
    assert added["time_ids"].tolist() == [[2]]
    (one, (two,)) = added["image_embeds"]
    assert (one.tolist(), two.tolist()) == ([[4]], [[6]])
    assert type(added["image_embeds"][1]) is tuple and type(hints) is list
    assert [hint.tolist() for hint in hints] == [[[8]], [[10]]]


def test_residuals_are_halved_where_they_have_the_rows_of_both_branches():
    both, mid, half = rows(1, 2, 3, 4, 5, 6), rows(7, 8, 9, 10, 11, 12), rows(1, 2, 3)
    call = {DOWN: [both, half, torch.tensor(0.0)], MID: mid}
    prompt_residuals(call, 6)
    down = call[DOWN]
    assert type(down) is tuple
    assert [r.flatten().tolist() for r in down] == [[4, 5, 6], [1, 2, 3], [0]]
    assert call[MID].flatten().tolist() == [10, 11, 12]


@pytest.mark.parametrize("call", [{}, {DOWN: None, MID: None}])
def test_a_call_without_residuals_has_none_afterwards(call):
    for change in (lambda c: prompt_residuals(c, 4), lambda c: drop_residuals(c, (), rows(0))):
        after = dict(call)
        change(after)
        assert after == call


def test_residuals_of_the_middle_alone_are_halved_too():
    call = {MID: rows(1, 2)}
    prompt_residuals(call, 2)
    assert call[MID].tolist() == [[2]] and list(call) == [MID]


def test_residuals_for_skips_that_nobody_reads_are_dropped():
    zero, first, second, mid = torch.tensor(0.0), rows(1), rows(2), rows(3)
    call = {DOWN: [first, second], MID: mid}
    drop_residuals(call, {"unet.skip.1", "unet.up"}, zero)
    assert call[DOWN][0] is zero and call[DOWN][1] is second and call[MID] is zero
    call = {DOWN: [first, second], MID: mid}
    drop_residuals(call, {"unet.skip.0", "unet.skip.mid"}, zero)
    assert call[DOWN][0] is first and call[DOWN][1] is zero and call[MID] is mid
    assert type(call[DOWN]) is tuple


def test_residuals_of_several_nets_are_added_up_in_their_order():
    # In this order 1e8 takes the small one in; from the other end it would be left.
    large, small = torch.tensor(1e8), torch.tensor(1.0)
    nets = [([small, large], large), ([large, small], small), ([-large, -large], -large)]
    down, mid = sum_residuals(nets)
    assert [float(r) for r in down] == [0, 0] and float(mid) == 0
    down, mid = sum_residuals(nets[::-1])
    assert [float(r) for r in down] == [1, 0] and float(mid) == 0
    down, mid = sum_residuals(nets[:1])
    assert down == [small, large] and mid is large


def test_the_latents_come_first_among_the_channels():
    latents, image = torch.zeros(2, 4, 3, 5, 5), torch.ones(2, 4, 3, 5, 5)
    assert torch.equal(latents_of(torch.cat([latents, image], 1), latents), latents)
    # Stable Video Diffusion's are (b f c h w), with as many frames as channels or not.
    for frames in (3, 4, 8):
        latents, image = torch.zeros(2, frames, 4, 5, 5), torch.ones(2, frames, 4, 5, 5)
        assert torch.equal(latents_of(torch.cat([latents, image], 2), latents), latents)
    flat, image = torch.zeros(2, 4, 5, 5), torch.ones(2, 4, 5, 5)
    assert torch.equal(latents_of(torch.cat([flat, image], 1), flat), flat)
    assert torch.equal(latents_of(flat, torch.zeros(2, 4, 6, 6)), flat), "a picture has no frames"


def test_a_prediction_is_read_and_replaced_in_either_kind_of_output():
    old, new, beside = rows(1), rows(2), rows(3)
    assert prediction_of((old, beside)) is old
    assert with_prediction((old, beside), new) == (new, beside)
    out = UNet2DConditionOutput(sample=old)
    assert prediction_of(out) is old
    assert with_prediction(out, new) is out and prediction_of(out) is new


def test_freeu_transforms_skips_while_it_is_on():
    unet = image_unet()
    assert not transforms_skips(unet)
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert transforms_skips(unet)
    unet.disable_freeu()
    assert not transforms_skips(unet)

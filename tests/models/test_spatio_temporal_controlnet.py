"""The ControlNet of Stable Video Diffusion: from a UNet, saved and loaded, under the community's names."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file

from hgc_video.errors import AdapterError, InputError
from hgc_video.models.layout import read_layout
from hgc_video.models.svd_controlnet import SpatioTemporalControlNetModel
from tests.tiny_models import (
    FRAMES,
    SIZE,
    TEXT_WIDTH,
    controlnet,
    motion_unet,
    svd_controlnet,
    svd_unet,
)


def inputs(clips=2, frames=FRAMES):
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=generator)

    return {
        "sample": random(clips, frames, 8, SIZE, SIZE), "timestep": torch.tensor(3.5),
        "encoder_hidden_states": random(clips, 1, TEXT_WIDTH),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]] * clips),
        "controlnet_cond": random(clips, frames, 3, 2 * SIZE, 2 * SIZE), "return_dict": False,
    }  # fmt: skip


@torch.no_grad()
def run(net, **more):
    down, mid = net(**{**inputs(), **more})
    return [*down, mid]


def test_it_begins_as_the_unets_encoder_and_adds_nothing():
    unet = svd_unet()
    net = SpatioTemporalControlNetModel.from_unet(unet, (8, 16))
    assert not any(residual.any() for residual in run(net))
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        ours, theirs = getattr(net, name).state_dict(), getattr(unet, name).state_dict()
        assert (
            all(torch.equal(ours[key], theirs[key]) for key in theirs)
            and ours.keys() == theirs.keys()
        )


def test_with_open_convolutions_it_hands_on_what_the_unets_encoder_makes():
    """Identities in place of the zero convolutions, and a hint encoder that still says nothing: the
    residuals are the UNet's own skips and the output of its middle."""
    unet = svd_unet()
    net = SpatioTemporalControlNetModel.from_unet(unet, (8, 16))
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.dirac_(conv.weight)
    seen = {}
    first = unet.up_blocks[0].register_forward_pre_hook(
        lambda m, a, kw: seen.update(mid=kw["hidden_states"]), with_kwargs=True
    )
    skips = [
        block.register_forward_pre_hook(
            lambda m, a, kw, i=i: seen.update({i: kw["res_hidden_states_tuple"]}), with_kwargs=True
        )
        for i, block in enumerate(unet.up_blocks)
    ]
    given = {k: v for k, v in inputs().items() if k != "controlnet_cond"}
    with torch.no_grad():
        unet(**given)
    [handle.remove() for handle in (first, *skips)]
    expected = [skip for i in reversed(range(len(skips))) for skip in seen[i]]
    for ours, theirs in zip(run(net), [*expected, seen["mid"]], strict=True):
        assert torch.equal(ours, theirs)


def test_the_hint_and_the_scale_tell():
    net = svd_controlnet()
    plain = run(net)
    assert all(
        torch.equal(2 * a, b) for a, b in zip(plain, run(net, conditioning_scale=2.0), strict=True)
    )
    other = run(net, controlnet_cond=inputs()["controlnet_cond"].flip(1))
    assert not any(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


def test_it_is_saved_as_safetensors_and_loaded_again(tmp_path):
    net = svd_controlnet()
    net.save_pretrained(tmp_path)
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    again = SpatioTemporalControlNetModel.from_pretrained(tmp_path, use_safetensors=True)
    assert all(torch.equal(a, b) for a, b in zip(run(net), run(again.eval()), strict=True))


def test_a_checkpoint_of_the_communitys_class_loads(tmp_path):
    """Its configuration names another class and has the UNet's fields; its weights are named as ours."""
    svd_controlnet().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"_class_name": "ControlNetSDVModel", "_diffusers_version": "0.25.0.dev0"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = SpatioTemporalControlNetModel.from_pretrained(tmp_path, use_safetensors=True).eval()
    assert all(torch.equal(a, b) for a, b in zip(run(svd_controlnet()), run(again), strict=True))
    names = {name.split(".")[0] for name in load_file(next(tmp_path.glob("*.safetensors")))}
    assert names == {
        "conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block",
        "controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block",
    }  # fmt: skip


def test_at_full_size_its_parameters_are_those_of_the_unets_encoder():
    """By name and shape, but for the hint encoder and the zero convolutions."""
    from diffusers import UNetSpatioTemporalConditionModel

    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel()
        net = SpatioTemporalControlNetModel()
    assert len(net.controlnet_down_blocks) == 12
    own = {name: tuple(p.shape) for name, p in net.named_parameters() if "controlnet" not in name}
    theirs = {name: tuple(p.shape) for name, p in unet.named_parameters()}
    assert own == {name: shape for name, shape in theirs.items() if name in own}
    left = {name.split(".")[0] for name in set(theirs) - set(own)}
    assert left == {"up_blocks", "conv_norm_out", "conv_out"}


@pytest.mark.parametrize("cond", [torch.zeros(2, 2, 3, 16, 16), torch.zeros(6, 3, 16, 16)])
def test_a_hint_of_another_clip_is_refused(cond):
    with pytest.raises(InputError, match=r"give \(b f c H W\)"):
        run(svd_controlnet(), controlnet_cond=cond)


def test_a_wrong_number_of_heads_is_refused():
    with pytest.raises(AdapterError, match="num_attention_heads"):
        SpatioTemporalControlNetModel(num_attention_heads=(1, 2))


def test_only_models_of_one_kind_go_together():
    for unet, net in ((svd_unet(), controlnet()), (motion_unet(), svd_controlnet())):
        with pytest.raises(AdapterError, match="belong together"):
            read_layout(unet, net)
    with torch.device("meta"), pytest.raises(AdapterError, match="belong together"):
        read_layout(svd_unet(), ControlNetModel())

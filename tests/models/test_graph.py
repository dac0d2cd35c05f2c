"""The block graph of live and full-size models, against published and measured figures."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, UNetMotionModel

from hgc_video.errors import AdapterError
from hgc_video.models.graph import build_graph
from hgc_video.models.layout import read_layout
from hgc_video.plan.cost import full_cost
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet


def full_size(**options):
    with torch.device("meta"):
        unet = UNetMotionModel(cross_attention_dim=768, num_attention_heads=8, **options)
        return unet, ControlNetModel(cross_attention_dim=768)


def test_animatediff_sd15_with_controlnet_at_full_size():
    """22.28 TMACs a step at 16 frames of 512x512 with guidance; the outermost cut is 6 % of the step."""
    unet, net = full_size()
    graph = build_graph(
        unet, net, num_frames=16, height=64, width=64, num_tokens=77, dtype_nbytes=2
    )
    step = full_cost(graph, 1).by_part()
    assert step["unet"] == pytest.approx(17.749e12, rel=1e-4)
    assert step["controlnet"] == pytest.approx(4.533e12, rel=1e-4)
    shares = []
    for cut in graph.cuts[:3]:
        alive = graph.alive({cut, *graph.names("hint")})
        shares.append(2 * sum(graph.by_name[n].macs for n in alive) / sum(step.values()))
    assert shares == pytest.approx([0.0595, 0.2094, 0.3654], abs=1e-3)
    assert len(graph.names("zero_conv")) == 13
    assert len(graph.names("motion")) == 21
    assert graph.by_name[graph.cuts[0]].nbytes * 2 == 80 * 2**20


def test_a_mid_block_without_motion():
    unet, net = full_size(use_motion_mid_block=False)
    graph = build_graph(unet, net, num_frames=16, height=64, width=64, num_tokens=77)
    assert full_cost(graph, 1).total == pytest.approx(22.208e12, rel=1e-3)
    assert len(graph.names("motion")) == 20


def test_shares_of_the_embedded_model():
    """Near SD1.5's, so that what is saved on it carries over."""
    from hgc_video.models.load import load_pipeline

    pipe = load_pipeline("puppet", "pose")
    graph = build_graph(
        pipe.unet, pipe.controlnet, num_frames=16, height=16, width=16, num_tokens=40
    )
    step = full_cost(graph, 1).by_part()
    total = sum(step.values())
    outermost = graph.alive({graph.cuts[0], *graph.names("hint")})
    assert 2 * sum(graph.by_name[n].macs for n in outermost) / total <= 0.12
    assert 0.15 <= step["controlnet"] / total <= 0.25
    outer = ("down_blocks.0", "up_blocks.2", "conv_in", "conv_out")
    share = sum(la.macs for la in graph.layers if any(f".{o}" in la.name for o in outer))
    assert 2 * share / total <= 0.5


def test_residuals_feed_the_skips_in_order():
    layout = read_layout(motion_unet(), controlnet())
    joins = [
        n for n in layout.nodes if n.name.startswith("unet.skip.") and n.name != "unet.skip.mid"
    ]
    assert [n.inputs[1] for n in joins] == [
        f"controlnet.controlnet_down_blocks.{k}" for k in range(len(joins))
    ]
    ups = [n for n in layout.nodes if n.kind == "resnet" and "up_blocks" in n.name]
    assert [n.inputs[1] for n in ups] == [j.name for j in reversed(joins)]


def test_other_models_are_refused_with_what_is_supported():
    with pytest.raises(AdapterError, match="UNetMotionModel"):
        read_layout(torch.nn.Linear(1, 1))
    with pytest.raises(AdapterError, match="ControlNetModel"):
        read_layout(motion_unet(), torch.nn.Linear(1, 1))


def test_a_layout_that_moved_is_refused_with_what_is_missing():
    unet = motion_unet()
    unet.mid_block = None
    with pytest.raises(AdapterError, match="mid_block"):
        read_layout(unet)


def test_every_layer_has_a_cost_and_a_size():
    graph = graph_of(Clip(motion_unet(), controlnet()))
    for layer in graph.layers:
        assert layer.kind == "join" or (layer.macs > 0 and layer.nbytes > 0), layer
    assert sum(la.cross_macs for la in graph.layers) > sum(la.text_macs for la in graph.layers) > 0

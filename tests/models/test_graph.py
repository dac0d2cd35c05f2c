"""The block graph of live and full-size models, against published and measured figures."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, UNetMotionModel

from hgc_video.errors import AdapterError, ModelError, PlanError
from hgc_video.measure.macs import MacCounter
from hgc_video.models.configurations import known_model, known_models
from hgc_video.models.graph_builder import build_graph
from hgc_video.models.layout import read_layout
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.cost import full_cost
from hgc_video.plan.liveness import live
from hgc_video.plan.schedule import StepPlan
from tests.tiny_models import (
    CLIPS,
    Clip,
    controlnet,
    graph_of,
    image_unet,
    motion_unet,
    multi_controlnet,
)


def full_size(**options):
    with torch.device("meta"):
        unet = UNetMotionModel(cross_attention_dim=768, num_attention_heads=8, **options)
        return unet, ControlNetModel(cross_attention_dim=768)


def test_animatediff_sd15_with_controlnet_at_full_size():
    """22.28 TMACs a step at 16 frames of 512x512 with guidance; the outermost cut is 6 % of the step."""
    unet, net = full_size()
    graph = build_graph(unet, net, ClipShape(16, 64, 64, 77), dtype_nbytes=2)
    step = full_cost(graph, 1).by_part()
    assert step["unet"] == pytest.approx(17.749e12, rel=1e-4)
    assert step["controlnet"] == pytest.approx(4.533e12, rel=1e-4)
    shares = []
    for cut in graph.depths[:3]:
        alive = live(graph, StepPlan(frozenset({cut, *graph.names("hint")}))).computed
        shares.append(2 * sum(graph.by_name[n].macs for n in alive) / sum(step.values()))
    assert shares == pytest.approx([0.0595, 0.2094, 0.3654], abs=1e-3)
    assert len(graph.names("zero_conv")) == 13
    assert len(graph.names("motion")) == 21
    assert graph.by_name[graph.depths[0]].nbytes * 2 == 80 * 2**20


def test_a_mid_block_without_motion():
    unet, net = full_size(use_motion_mid_block=False)
    graph = build_graph(unet, net, ClipShape(16, 64, 64, 77))
    assert full_cost(graph, 1).total == pytest.approx(22.208e12, rel=1e-3)
    assert len(graph.names("motion")) == 20


def test_shares_of_the_embedded_model():
    """Near SD1.5's, so that what is saved on it carries over."""
    from hgc_video.models.load import load_pipeline

    pipe = load_pipeline("puppet", "pose")
    graph = build_graph(pipe.unet, pipe.controlnet, ClipShape(16, 16, 16, 40))
    step = full_cost(graph, 1).by_part()
    total = sum(step.values())
    held = StepPlan(frozenset({graph.depths[0], *graph.names("hint")}))
    outermost = live(graph, held).computed
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
    attentions = graph.attentions.values()
    assert all(a.macs > a.text_macs and a.nbytes > 0 for a in attentions)
    assert {a.kind for a in attentions} == {"spatial", "temporal", "cross"}
    assert all((a.text_macs > 0) == (a.kind == "cross") for a in attentions)


@pytest.mark.parametrize("name", CLIPS)
def test_the_layers_macs_are_what_the_host_runs(name):
    clip = CLIPS[name]()
    with MacCounter() as counter:
        clip.step(clip.timesteps[0])
    assert counter.macs == full_cost(graph_of(clip), 1).total


def test_two_controlnets_feed_every_skip():
    graph = graph_of(Clip(motion_unet(), multi_controlnet()))
    joins = [graph.by_name[name] for name in graph.names("join", "unet")]
    assert all([i.split(".")[2] for i in join.inputs[1:]] == ["0", "1"] for join in joins)


def test_what_is_known_without_files_builds_in_seconds():
    assert {"sd15", "sd21", "sdxl", "svd", "animatediff-sd15"} <= set(known_models())
    svd = known_model("svd")
    graph = build_graph(*svd.build(), ClipShape(25, 72, 128, svd.num_tokens))
    assert full_cost(graph, 1).total == pytest.approx(79.95e12, rel=5e-3)
    constant = [a for a in graph.attentions.values() if a.constant]
    assert len(constant) == 2 * 16 and all(a.kind == "cross" for a in constant)
    assert sum(a.macs for a in constant) * 2 == pytest.approx(2.99e12, rel=5e-3)
    with pytest.raises(ModelError, match="one control at a time"):
        svd.build(2)
    with pytest.raises(ModelError, match="sd15"):
        known_model("sd-15")


def test_svd_with_a_controlnet_at_full_size():
    """25 frames of 576x1024: the ControlNet costs as much as the UNet's own encoder and a little more, and
    the outermost cut needs 0.2 % of it."""
    svd = known_model("svd")
    graph = build_graph(*svd.build(1), ClipShape(25, 72, 128, svd.num_tokens))
    step = full_cost(graph, 1).by_part()
    assert step["unet"] == pytest.approx(79.95e12, rel=5e-3)
    assert step["controlnet"] == pytest.approx(30.13e12, rel=1e-3)
    assert len(graph.names("zero_conv")) == 13

    def macs(*starts):
        return 2 * sum(la.macs for la in graph.layers if la.name.startswith(starts))

    inner = ("conv_in", "time", "add", "down_blocks", "mid_block")
    assert macs(*(f"controlnet.{n}" for n in inner)) == macs(*(f"unet.{n}" for n in inner))
    alive = live(graph, StepPlan(frozenset({graph.depths[0], *graph.names("hint")}))).computed
    heard = 2 * sum(graph.by_name[n].macs for n in alive if n.startswith("controlnet."))
    assert heard / step["controlnet"] == pytest.approx(0.0019, abs=1e-4)


def test_conventions():
    clip = Clip(image_unet(), None)
    shape = ClipShape(1, 8, 8, 7)
    whole = build_graph(clip.unet, None, shape)
    older = build_graph(clip.unet, None, shape, convention="no-attention-products")
    missing = sum(a.macs for a in whole.layers) - sum(a.macs for a in older.layers)
    # Queries x keys and weights x values: positions see positions, or tokens, in so many channels.
    outer = sum(2 * 64 * n * 32 for n in (64, 7)) * (1 + 2)
    middle = sum(2 * 16 * n * 64 for n in (16, 7))
    assert missing == outer + middle
    with pytest.raises(PlanError, match="no-attention-products"):
        build_graph(clip.unet, None, shape, convention="thop")

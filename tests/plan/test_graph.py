"""The graph's own rules, on a graph small enough to work out by hand."""

from __future__ import annotations

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.graph import BlockGraph, Layer


def ladder() -> BlockGraph:
    """in -> deep -> up, with a skip from in to up and a residual on it."""
    layers = (
        Layer("controlnet.hint", "hint", (), macs=5, nbytes=4),
        Layer("controlnet.zero", "zero_conv", ("controlnet.hint",), macs=7, nbytes=4),
        Layer("unet.in", "conv_in", (), macs=1, nbytes=8),
        Layer("unet.skip", "join", ("unet.in", "controlnet.zero")),
        Layer(
            "unet.deep", "attention", ("unet.in",), macs=100, nbytes=16, cross_macs=30, text_macs=12
        ),
        Layer("unet.up", "resnet", ("unet.deep", "unet.skip"), macs=10, nbytes=8),
    )
    return BlockGraph(layers, cuts=("unet.deep",), branches=2, num_frames=4)


def test_everything_is_alive_without_reuse():
    graph = ladder()
    assert graph.alive() == {layer.name for layer in graph.layers}


def test_what_only_feeds_a_reused_output_is_dead():
    graph = ladder()
    assert graph.alive({"unet.deep"}) == set(graph.by_name) - {"unet.deep"}
    assert graph.alive({"unet.up"}) == set()
    assert graph.alive({"unet.skip"}) == {"unet.up", "unet.deep", "unet.in"}


def test_only_what_a_live_layer_reads_is_read():
    graph = ladder()
    assert graph.read({"unet.deep", "controlnet.hint"}) == {"unet.deep", "controlnet.hint"}
    assert graph.read({"controlnet.zero", "controlnet.hint"}) == {"controlnet.zero"}


def test_a_layer_that_reads_what_is_not_made_yet_is_refused():
    with pytest.raises(PlanError, match="before they are made"):
        BlockGraph((Layer("unet.a", "resnet", ("unet.b",)),), (), 2, 1)
    with pytest.raises(PlanError):
        BlockGraph((Layer("unet.a", "resnet", ()), Layer("unet.a", "resnet", ())), (), 2, 1)

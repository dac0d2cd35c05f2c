"""The graph's own rules, on a graph small enough to work out by hand."""

from __future__ import annotations

import json

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.graph import Attention, BlockGraph, Layer

SELF = Attention("unet.deep.attn1", "spatial", macs=20, nbytes=6)
CROSS = Attention("unet.deep.attn2", "cross", macs=30, nbytes=6, text_macs=12)


def ladder() -> BlockGraph:
    """in -> deep -> up, with a skip from in to up and a residual on it."""
    layers = (
        Layer("controlnet.hint", "hint", (), macs=5, nbytes=4),
        Layer("controlnet.zero", "zero_conv", ("controlnet.hint",), macs=7, nbytes=4),
        Layer("unet.in", "conv_in", (), macs=1, nbytes=8),
        Layer("unet.skip", "join", ("unet.in", "controlnet.zero")),
        Layer("unet.deep", "attention", ("unet.in",), 100, 16, (SELF, CROSS)),
        Layer("unet.up", "resnet", ("unet.deep", "unet.skip"), macs=10, nbytes=8),
    )
    return BlockGraph(layers, depths=("unet.deep",), branches=2, num_frames=4, blocks=(1,))


def test_names_by_kind_and_part():
    graph = ladder()
    assert graph.names("join") == ("unet.skip",)
    assert graph.residuals() == ("controlnet.zero",)
    assert graph.attention_names("cross") == {"unet.deep.attn2"}
    assert graph.attention_names("cross", part="controlnet") == set()


def test_a_layer_that_reads_what_is_not_made_yet_is_refused():
    with pytest.raises(PlanError, match="before they are made"):
        BlockGraph((Layer("unet.a", "resnet", ("unet.b",)),), (), 2, 1)
    with pytest.raises(PlanError):
        BlockGraph((Layer("unet.a", "resnet", ()), Layer("unet.a", "resnet", ())), (), 2, 1)


def test_a_graph_is_plain_data_without_its_defaults():
    data = ladder().to_dict()
    attention = {"name": "unet.deep.attn1", "kind": "spatial", "macs": 20, "nbytes": 6}
    cross = {"name": "unet.deep.attn2", "kind": "cross", "macs": 30, "nbytes": 6, "text_macs": 12}
    assert data == {
        "layers": [
            {"name": "controlnet.hint", "kind": "hint", "inputs": [], "macs": 5, "nbytes": 4},
            {"name": "controlnet.zero", "kind": "zero_conv", "inputs": ["controlnet.hint"], "macs": 7,
             "nbytes": 4},
            {"name": "unet.in", "kind": "conv_in", "inputs": [], "macs": 1, "nbytes": 8},
            {"name": "unet.skip", "kind": "join", "inputs": ["unet.in", "controlnet.zero"]},
            {"name": "unet.deep", "kind": "attention", "inputs": ["unet.in"], "macs": 100, "nbytes": 16,
             "attentions": [attention, cross]},
            {"name": "unet.up", "kind": "resnet", "inputs": ["unet.deep", "unet.skip"], "macs": 10,
             "nbytes": 8},
        ],
        "depths": ["unet.deep"], "branches": 2, "num_frames": 4, "blocks": [1],
    }  # fmt: skip
    assert BlockGraph.from_dict(json.loads(json.dumps(data))) == ladder()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"branches": "two"}, "a block graph: branches=two is not possible; give a whole number"),
        ({"depths": None}, "a block graph: depths=None is not possible; give a valid tuple"),
        ({"layers": [{"name": "a"}]}, "a block graph needs layers=VALUE"),
        ({"layers": [{"name": "a", "kind": "x", "inputs": ["b"]}]}, "layer a reads ['b'] before they are"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused_with_the_field(change, says):
    with pytest.raises(PlanError) as told:
        BlockGraph.from_dict(ladder().to_dict() | change)
    assert says in str(told.value)

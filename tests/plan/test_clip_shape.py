"""The shape of a clip as the models get it: what is known of it, and the rows of the motion modules."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from hgc_video.plan.clip_shape import ClipShape


def test_positions_are_those_of_all_latents_of_every_branch():
    assert ClipShape(num_frames=7, height=3, width=5, num_tokens=11, branches=4).num_positions == 60
    assert ClipShape(7, 3, 5, 11, 1).num_positions == 15


def test_a_clip_is_guided_unless_it_is_told_and_is_known_by_its_numbers():
    shape = ClipShape(7, 3, 5, 11)
    assert shape.branches == 2 and shape.num_positions == 30
    assert shape == ClipShape(7, 3, 5, 11, 2) != ClipShape(7, 5, 3, 11)
    assert {shape: "graph"}[ClipShape(7, 3, 5, 11)] == "graph", "a graph is kept by its shape"
    with pytest.raises(FrozenInstanceError):
        shape.branches = 1

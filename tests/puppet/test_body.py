"""Limbs and their depth buffer: what is nearer wins, whatever is drawn first."""

from __future__ import annotations

import numpy as np
import pytest

from hgc_video.puppet.body import PARTS, Canvas, Limb, Material, draw
from hgc_video.puppet.world import depth_map

BODY, SIDE = 64.0, 48
LIGHT = np.array([0, 0, 1], np.float32)
COLOURS = {"shirt": (200, 30, 30), "trousers": (30, 30, 200)}


def limb(part, start, end, depth):
    ends = (np.array([*place, depth], np.float32) for place in (start, end))
    return Limb(part, *ends, 5.0, 4.0)


def drawn(limbs, pattern="plain"):
    canvas = Canvas.over(np.full((SIDE, SIDE, 3), 90, np.float32))
    for one in limbs:
        cloth = Material(np.array(COLOURS[one.part], np.float32), pattern, 1.0, 120.0)
        draw(canvas, one, cloth, LIGHT, BODY)
    return canvas


@pytest.mark.parametrize("near_is_drawn_first", [True, False])
def test_the_nearer_limb_wins_and_is_brighter_in_depth(near_is_drawn_first):
    near = limb("shirt", (8, 24), (40, 24), 12.0)
    far = limb("trousers", (24, 8), (24, 40), -12.0)
    canvas = drawn([near, far] if near_is_drawn_first else [far, near])
    assert canvas.part[24, 24] == PARTS.index("shirt")
    assert canvas.part[10, 24] == PARTS.index("trousers")
    assert canvas.colour[24, 24, 0] > 150
    depth = depth_map(canvas, BODY).astype(int)
    assert depth[24, 24] > depth[10, 24] + 20
    assert depth[10, 24] > depth[2, 2]


def test_a_limb_that_comes_closer_along_its_length_gets_brighter():
    arm = Limb(
        "shirt", np.array([8, 24, -10], np.float32), np.array([40, 24, 10], np.float32), 5, 5
    )
    row = depth_map(drawn([arm]), BODY)[24, 8:41].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[-1] > row[0] + 15


def test_what_is_outside_the_frame_leaves_no_trace_and_what_crosses_its_edge_is_cut():
    empty = drawn([])
    outside = drawn(
        [limb("shirt", (-60, 24), (-30, 24), 0.0), limb("shirt", (24, 90), (24, 99), 0)]
    )
    assert np.array_equal(outside.colour, empty.colour)
    assert not outside.part.any()
    assert drawn([limb("shirt", (-10, 24), (10, 24), 0.0)]).part[24, 0] == PARTS.index("shirt")


@pytest.mark.parametrize("pattern", ["stripes", "pinstripes", "checks", "dots"])
def test_a_pattern_changes_pixels_and_keeps_the_mean_colour(pattern):
    sleeve = limb("shirt", (6, 24), (42, 24), 0.0)
    plain, patterned = drawn([sleeve]), drawn([sleeve], pattern)
    mask = plain.part > 0
    assert np.abs(plain.colour - patterned.colour)[mask].max() > 20
    assert np.abs(plain.colour[mask].mean(0) - patterned.colour[mask].mean(0)).max() < 15

"""The measures, on answers known beforehand, and the judge on true clips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hgc_video.puppet.body import PARTS
from hgc_video.puppet.evaluation import accuracy, held_out
from hgc_video.puppet.fidelity import (
    background_flicker,
    nearest_colour,
    part_colours,
    silhouette_iou,
)
from hgc_video.puppet.judge import Judge, load_judge
from hgc_video.puppet.spec import NO_HAT, PALETTE, Spec
from hgc_video.puppet.world import Rendering


class Threshold(Judge):
    """Takes for a dancer what is bright."""

    def silhouette(self, frames):
        return frames[..., 0] > 127


def bands(shirt, trousers, hat_rows=4):
    """A clip (2 32 32 3) with a shirt, trousers and a hat as flat bands of colour, and its truth."""
    parts, frames = np.zeros((2, 32, 32), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
    for part, rows, colour in (
        ("hat", slice(0, hat_rows), "green"), ("shirt", slice(4, 12), shirt),
        ("trousers", slice(12, 24), trousers),
    ):  # fmt: skip
        parts[:, rows], frames[:, rows] = PARTS.index(part), PALETTE[colour]
    return frames, Rendering(frames, frames, frames, parts)


@pytest.mark.parametrize("name", PALETTE)
def test_a_palette_colour_in_weaker_light_is_still_itself(name):
    assert nearest_colour(np.array(PALETTE[name]) * 0.9) == name


def test_part_colours_say_what_is_where_and_swapped_garments_are_wrong():
    asked = Spec("red", "blue", "green", "beach")
    frames, truth = bands("red", "blue")
    assert part_colours(frames, truth, asked) == [
        ("shirt", "red", "red"), ("trousers", "blue", "blue"), ("hat", "green", "green"),
    ]  # fmt: skip
    swapped, _ = bands("blue", "red")
    assert [found for *_, found in part_colours(swapped, truth, asked)] == ["blue", "red", "green"]
    assert accuracy(part_colours(swapped, truth, asked)) == pytest.approx(1 / 3)


def test_a_hat_not_asked_for_or_hardly_seen_is_not_judged():
    frames, truth = bands("red", "blue")
    bare = Spec("red", "blue", NO_HAT, "beach")
    assert [part for part, *_ in part_colours(frames, truth, bare)] == ["shirt", "trousers"]
    frames, truth = bands("red", "blue", hat_rows=0)
    hatted = Spec("red", "blue", "green", "beach")
    assert [part for part, *_ in part_colours(frames, truth, hatted)] == ["shirt", "trousers"]


def test_overlap_of_known_shapes():
    frames = np.zeros((1, 4, 8, 3), np.uint8)
    frames[:, :, :4] = 255
    truth = np.zeros((1, 4, 8), bool)
    assert silhouette_iou(frames, truth, Threshold()) == 0
    truth[:, :, 2:6] = True
    assert silhouette_iou(frames, truth, Threshold()) == pytest.approx(2 / 6)
    truth[:] = frames[..., 0] > 0
    assert silhouette_iou(frames, truth, Threshold()) == 1


def test_flicker_counts_the_background_alone():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    dancer = np.zeros((2, 4, 4), bool)
    dancer[:, :2] = True
    frames[1, :2] = 200
    assert background_flicker(frames, dancer) == 0
    frames[1, 2:] = 6
    assert background_flicker(frames, dancer) == 6


def test_the_judge_finds_true_dancers_and_not_other_ones():
    judge = load_judge()
    cases = [held_out(700 + k, 2) for k in range(12)]
    own = [silhouette_iou(c.truth.frames, c.truth.silhouette, judge) for c in cases]
    others = [
        silhouette_iou(a.truth.frames, b.truth.silhouette, judge)
        for a, b in itertools.pairwise(cases)
    ]
    assert np.mean(own) > 0.9
    assert np.mean(others) < 0.5

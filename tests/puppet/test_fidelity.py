"""The measures, on answers known beforehand, and the judge on true clips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.fidelity import background_flicker, nearest_colour, psnr, silhouette_iou
from hgc_video.puppet.judge import load_judge
from hgc_video.puppet.spec import PALETTE


@pytest.mark.parametrize("name", PALETTE)
def test_a_palette_colour_in_weaker_light_is_still_itself(name):
    assert nearest_colour(np.array(PALETTE[name]) * 0.9) == name


def test_psnr_of_known_errors():
    black = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == pytest.approx(0)
    assert psnr(black, black + np.uint8(1)) == pytest.approx(48.13, abs=0.01)


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

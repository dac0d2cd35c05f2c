"""Motions: repeatable, windows of recorded ones unharmed by mirroring, and bodies kept in proportion."""

from __future__ import annotations

import numpy as np
import pytest

from hgc_video.media.skeleton import JOINTS
from hgc_video.puppet.motion import (
    RECORDED,
    load_recorded,
    place,
    procedural_motion,
    random_motion,
    recorded_motion,
)

SIDES = [
    JOINTS.index(n.replace("right", "left") if "right" in n else n.replace("left", "right"))
    for n in JOINTS
]


def mirrored(motion):
    """What a mirror shows: x negated, right joints called left."""
    other = motion[:, SIDES].copy()
    other[..., 0] *= -1
    return other


def is_window(motion, source):
    """Whether the frames of `motion` are frames of `source`, in order, forwards or backwards."""
    index = [int(np.abs(source - frame).sum((1, 2)).argmin()) for frame in motion]
    steps = set(np.diff(index).tolist())
    return np.array_equal(source[index], motion) and steps in ({1}, {2}, {-1}, {-2})


@pytest.mark.parametrize("recorded", [0.0, 1.0])
def test_the_same_seed_gives_the_same_motion(recorded):
    first, again, other = (
        random_motion(np.random.default_rng(seed), 6, recorded=recorded) for seed in (4, 4, 5)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_window_of_a_recording_is_plain_mirrored_or_reversed_and_nothing_else():
    source, rng = load_recorded("dance"), np.random.default_rng(0)
    plain = flipped = 0
    for _ in range(24):
        motion = recorded_motion("dance", rng, 6)
        plain += is_window(motion, source)
        flipped += is_window(mirrored(motion), source)
    assert plain + flipped == 24
    assert min(plain, flipped) > 4


@pytest.mark.parametrize("name", RECORDED)
def test_a_clip_longer_than_its_recording_turns_round_without_a_jump(name):
    source = load_recorded(name)
    long = recorded_motion(name, np.random.default_rng(1), 3 * len(source))
    fastest = np.abs(np.diff(source[..., :2], axis=0)).max()
    assert len(long) == 3 * len(source)
    assert np.abs(np.diff(long[..., :2], axis=0)).max() <= fastest + 1e-6


def test_placing_moves_and_scales_but_never_stretches():
    motion = procedural_motion(np.random.default_rng(2), 5)
    placed = place(motion, np.random.default_rng(3), 0.6)
    span, placed_span = (m[:, 1:, :3] - m[:, :1, :3] for m in (motion, placed))
    scale = np.linalg.norm(placed_span) / np.linalg.norm(span)
    np.testing.assert_allclose(placed_span, scale * span, atol=1e-5)
    assert np.array_equal(placed[..., 3], motion[..., 3])


def test_bones_of_a_procedural_body_keep_their_length():
    for seed in range(12):
        motion = procedural_motion(np.random.default_rng(seed), 8)
        for a, b, length in ((2, 3, 0.155), (3, 4, 0.145), (8, 9, 0.245), (9, 10, 0.235)):
            bones = np.linalg.norm(motion[:, a, :3] - motion[:, b, :3], axis=-1)
            np.testing.assert_allclose(bones, length, rtol=0.03)


def test_a_face_turned_away_is_not_seen():
    facing, away = [], []
    for seed in range(60):
        motion = procedural_motion(np.random.default_rng(seed), 4)
        front = motion[:, 0, 2] - motion[:, [16, 17], 2].mean(1)
        facing += motion[front > 0.03, 0, 3].tolist()
        away += motion[front < -0.03, 0, 3].tolist()
    assert facing and away
    assert min(facing) == 1
    assert max(away) == 0

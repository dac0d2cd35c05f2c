"""The drawing of skeletons: OpenPose's joints, bones and colours, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from hgc_video.media.skeleton import (
    BONES,
    COLOURS,
    FACE,
    JOINTS,
    LEFT_HAND,
    NUM_POINTS,
    draw_people,
    draw_skeleton,
)

# As published with OpenPose's COCO model; foreign clips and pretrained ControlNets hold to them.
PUBLISHED = {
    "nose": (255, 0, 0),
    "neck": (255, 85, 0),
    "right_shoulder": (255, 170, 0),
    "right_wrist": (170, 255, 0),
    "left_wrist": (0, 255, 85),
    "left_ankle": (85, 0, 255),
    "left_ear": (255, 0, 85),
}


def grid(visibility: float = 1.0) -> np.ndarray:
    """18 joints far from each other, (18, 3), each at the centre of a pixel."""
    k = np.arange(len(JOINTS))
    return np.stack([20.5 + 40 * (k % 6), 20.5 + 60 * (k // 6), np.full(18, visibility)], -1)


def only(*seen: int) -> np.ndarray:
    joints = grid(0.0)
    joints[list(seen), 2] = 1
    return joints


@pytest.mark.parametrize("name", PUBLISHED)
def test_joints_have_the_published_colours(name):
    joint = JOINTS.index(name)
    frame = draw_skeleton(only(joint), 160, 240)
    x, y = grid()[joint, :2].astype(int)
    assert tuple(frame[y, x]) == PUBLISHED[name]
    assert len(set(COLOURS)) == len(JOINTS)


@pytest.mark.parametrize("bone", range(len(BONES)))
def test_every_bone_joins_its_two_joints_in_its_own_dimmed_colour(bone):
    joints = only(*BONES[bone])
    x, y = joints[list(BONES[bone]), :2].mean(0).astype(int)
    frame = draw_skeleton(joints, 160, 240, stroke=6)
    np.testing.assert_allclose(frame[y, x], np.array(COLOURS[bone]) * 0.6, atol=1)


def test_the_skeleton_is_one_piece_that_reaches_every_joint():
    reached = {1}
    for _ in JOINTS:
        reached |= {b for a, b in BONES if a in reached} | {a for a, b in BONES if b in reached}
    assert reached == set(range(18))


def test_a_joint_not_seen_takes_its_bones_with_it():
    whole, without = draw_skeleton(only(2, 3, 4), 160, 240), draw_skeleton(only(2, 4), 160, 240)
    x, y = grid()[3, :2].astype(int)
    assert whole[y, x].any()
    assert not without[y, x].any()
    assert not draw_skeleton(grid(0.29), 160, 240).any()
    assert draw_skeleton(grid(0.31), 160, 240).any()
    assert draw_skeleton(grid(0.29), 160, 240, min_visibility=0.2).any()


def test_joints_outside_the_frame_are_cut_off():
    joints = grid()
    joints[:, :2] -= 45
    frame = draw_skeleton(joints, 64, 96)
    assert frame.shape == (64, 96, 3)
    assert frame.any()
    joints[:, :2] += 9000
    assert not draw_skeleton(joints, 64, 96).any()


def test_the_default_stroke_is_openposes_at_512_and_stays_visible_when_small():
    large, small = (np.array(only(0)) for _ in range(2))
    large[0, :2], small[0, :2] = 256, 16
    area = (draw_skeleton(large, 512, 512)[..., 0] > 127).sum()
    assert np.pi * 3.5**2 <= area <= np.pi * 4.5**2
    assert draw_skeleton(small, 32, 32).max() > 127


def test_joints_are_left_as_given_and_a_wrong_shape_is_named():
    joints = grid()
    draw_skeleton(joints, 160, 240)
    assert np.array_equal(joints, grid())
    with pytest.raises(ValueError, match=r"\(18, 3\), got \(17, 3\)"):
        draw_skeleton(joints[:17], 160, 240)


def test_several_people_are_drawn_each_and_a_body_alone_as_ever():
    one = np.array([[20 + 3 * (k % 5), 10 + 3 * k, 1.0] for k in range(18)])
    alone = draw_skeleton(one, 80, 160)
    assert np.array_equal(draw_people(one[None], 80, 160), alone)
    both = draw_people(np.stack([one, one + np.array([90, 0, 0])]), 80, 160)
    assert np.array_equal(both[:, :70], alone[:, :70]) and np.array_equal(
        both[:, 90:], alone[:, :70]
    )
    assert draw_people(np.zeros((0, 18, 3)), 80, 160).max() == 0


def test_hands_and_faces_are_drawn_as_openpose_draws_them():
    person = np.zeros((NUM_POINTS, 3))
    person[LEFT_HAND, :2] = [(100 + 12 * (k % 4), 40 + 12 * (k // 4)) for k in range(21)]
    person[FACE, :2] = [(20 + 5 * (k % 10), 60 + 6 * (k // 10)) for k in range(70)]
    assert draw_people(person[None], 200, 300).max() == 0, "what is not seen is not drawn"
    person[LEFT_HAND, 2] = person[FACE, 2] = 1
    frame = draw_people(person[None], 512, 512)
    joints = person[LEFT_HAND, :2].astype(int)
    assert (frame[joints[:, 1], joints[:, 0]] == (0, 0, 255)).all()
    points = person[FACE, :2].astype(int)
    assert (frame[points[:, 1], points[:, 0]] == 255).all()
    person[LEFT_HAND.start, 2] = 0
    assert (draw_people(person[None], 512, 512)[:, 90:] == 0).all(), "no half of a hand"

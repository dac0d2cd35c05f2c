"""The procedural world: what prompt and control fix, what the style seed decides, and that truth is true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hgc_video.evaluate.quality import psnr
from hgc_video.media.skeleton import COLOURS as JOINT_COLOURS
from hgc_video.puppet.body import PARTS
from hgc_video.puppet.fidelity import part_colours
from hgc_video.puppet.motion import RECORDED, load_recorded, place, procedural_motion, random_motion
from hgc_video.puppet.spec import Spec, random_spec
from hgc_video.puppet.world import render

SPEC = Spec("red", "blue", "green", "beach")


@pytest.fixture(scope="module")
def motion():
    return random_motion(np.random.default_rng(3), 4, recorded=0)


def test_the_same_seed_gives_the_same_clip(motion):
    first, again = render(SPEC, motion, 5), render(SPEC, motion, 5)
    assert np.array_equal(first.frames, again.frames)


def test_another_style_changes_what_is_free_and_nothing_else(motion):
    first, other = render(SPEC, motion, 5), render(SPEC, motion, 6)
    assert psnr(first.frames, other.frames) < 20
    assert np.array_equal(first.pose, other.pose)
    overlap = (first.silhouette & other.silhouette).sum() / (
        first.silhouette | other.silhouette
    ).sum()
    assert overlap > 0.8  # hair, brim and build are free
    for clip in (first, other):
        assert all(asked == found for _, asked, found in part_colours(clip.frames, clip, SPEC))


def test_another_spec_changes_colours_and_not_the_body(motion):
    first = render(SPEC, motion, 5)
    other = render(replace(SPEC, shirt="yellow", scene="city"), motion, 5)
    assert np.array_equal(first.parts, other.parts)
    shirt = first.mask("shirt")
    assert np.abs(first.frames[shirt].mean(0) - other.frames[shirt].mean(0)).max() > 60


def test_another_motion_moves_body_and_controls_and_keeps_the_scenery(motion):
    rng = np.random.default_rng(9)
    first, other = (render(SPEC, m, 5) for m in (motion, random_motion(rng, 4, recorded=0)))
    both, either = (f(first.silhouette, other.silhouette) for f in (np.logical_and, np.logical_or))
    assert both.sum() / either.sum() < 0.6
    assert not np.array_equal(first.pose, other.pose)
    sky = ~either & (np.arange(128) < 64)[None, :, None]  # where no shadow falls
    same = (first.frames == other.frames).all(-1)
    assert same[sky].mean() > 0.98  # but for the soft edges of the two bodies


def test_true_clips_pass_their_own_measure():
    rng = np.random.default_rng(0)
    found = []
    for seed in range(60):
        spec = random_spec(rng)
        clip = render(spec, random_motion(rng, 2), seed)
        found += part_colours(clip.frames, clip, spec)
    assert len(found) > 120
    assert np.mean([asked == colour for _, asked, colour in found]) >= 0.99


def test_masks_name_every_part(motion):
    clip = render(SPEC, motion, 5)
    assert set(np.unique(clip.parts)) == set(range(len(PARTS)))
    assert np.array_equal(clip.silhouette, clip.parts > 0)
    assert (sum(clip.mask(part).astype(int) for part in PARTS) == 1).all()
    assert 0.03 < clip.silhouette.mean() < 0.4


def test_the_skeleton_has_the_usual_colours(motion):
    clip = render(SPEC, motion, 5, height=256, width=256, stroke=6)
    seen = {tuple(c) for c in clip.pose.reshape(-1, 3)}
    assert {JOINT_COLOURS[k] for k in (1, 3, 4, 9, 10, 12)} <= seen


def test_depth_is_bright_where_the_body_is_near(motion):
    near = motion.copy()
    near[..., 2] += 0.2
    first, second = render(SPEC, motion, 5), render(SPEC, near, 5)
    body = first.silhouette
    assert second.depth[body].mean() > first.depth[body].mean() + 10
    assert first.depth[body].mean() > first.depth[~body].mean() + 50


def test_a_raised_hand_in_front_hides_the_shirt():
    motion = place(procedural_motion(np.random.default_rng(1), 2), np.random.default_rng(2))
    chest = (motion[:, 1, :3] * 2 + motion[:, 8, :3]) / 3
    shirts = []
    for depth in (0.2, -0.2):
        moved = motion.copy()
        for joint, share in ((3, 0.5), (4, 1.0)):
            moved[:, joint, :3] = motion[:, 2, :3] + share * (chest - motion[:, 2, :3])
            moved[:, joint, 2] += depth
        shirts.append(render(SPEC, moved, 7).mask("skin").sum())
    assert shirts[0] > shirts[1]


@pytest.mark.parametrize(("height", "width", "frames"), [(160, 96, 1), (96, 160, 3), (64, 64, 2)])
def test_any_size_and_length(height, width, frames):
    rng = np.random.default_rng(4)
    clip = render(SPEC, random_motion(rng, frames, width / height), 1, height=height, width=width)
    assert clip.frames.shape == clip.pose.shape == clip.depth.shape == (frames, height, width, 3)


@pytest.mark.parametrize("aspect", [0.6, 1.0, 1.67])
def test_motions_stay_in_the_frame(aspect):
    rng = np.random.default_rng(8)
    for _ in range(20):
        motion = random_motion(rng, 8, aspect)
        assert motion.shape == (8, 18, 4)
        assert motion[..., 0].min() >= 0 and motion[..., 0].max() <= aspect
        assert motion[..., 1].min() >= 0 and motion[..., 1].max() <= 1


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_people_face_the_way_their_noses_point(name):
    """Depth grows towards the camera: a visible nose is nearer than the ears."""
    motion = load_recorded(name)
    facing = motion[motion[:, 0, 3] > 0.9]
    assert (facing[:, 0, 2] > facing[:, [16, 17], 2].min(1)).mean() > 0.9


@pytest.mark.parametrize("field", ["shirt", "trousers", "hat", "scene"])
def test_a_spec_says_what_is_allowed(field):
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        replace(SPEC, **{field: "pinkish"})

"""The measures, on answers known beforehand, and the judge on true clips."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hgc_video.puppet import world
from hgc_video.puppet.body import MEMBERS, PARTS
from hgc_video.puppet.evaluation import accuracy, clip_figures, held_out, summary
from hgc_video.puppet.evaluation_table import AIMS, table
from hgc_video.puppet.fidelity import (
    background_flicker,
    gradient_energy,
    nearest_colour,
    part_colours,
    silhouette_iou,
    wears_hat,
)
from hgc_video.puppet.judge import Judge, load_judge
from hgc_video.puppet.limb_recall import limb_recall, missing_limbs
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
    return frames, Rendering(frames, frames, frames, parts, np.zeros_like(parts))


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


def test_gradient_energy_of_known_stripes_and_of_a_blurred_frame():
    frames = np.zeros((1, 4, 8, 3), np.uint8)
    frames[:, :, ::2] = 10  # every step across is 10, none down
    assert gradient_energy(frames) == pytest.approx(50)
    assert gradient_energy(np.full_like(frames, 80)) == 0
    true = held_out(0, 1).truth.frames
    small = Image.fromarray(true[0]).resize((64, 64), Image.Resampling.BOX)
    soft = np.asarray(small.resize((128, 128), Image.Resampling.BILINEAR))[None]
    assert gradient_energy(soft) < 0.6 * gradient_energy(true)


@pytest.fixture(scope="module")
def cases():
    return [held_out(700 + k, 2) for k in range(12)]


def without(monkeypatch, *members):
    """Makes the world draw dancers who lack these arms and legs."""
    whole = world.limbs
    monkeypatch.setattr(
        world, "limbs", lambda *a: [limb for limb in whole(*a) if limb.member not in members]
    )


def recall(case, frames):
    return limb_recall(frames, case.truth, case.spec, load_judge())


def test_true_clips_have_all_their_limbs(cases):
    found = np.concatenate([recall(c, c.truth.frames) for c in cases])
    assert np.nanmean(found) > 0.98
    assert missing_limbs(found) == 0


def test_a_limb_that_is_not_drawn_is_not_found_and_the_others_are(cases, monkeypatch):
    without(monkeypatch, "left leg")
    damaged = [world.render(c.spec, c.motion, c.style_seed) for c in cases]
    found = np.concatenate([recall(c, d.frames) for c, d in zip(cases, damaged, strict=True)])
    column = MEMBERS.index("left leg") - 1
    others = np.delete(found, column, axis=1)
    assert np.nanmean(found[:, column]) < 0.4
    assert np.nanmean(others) > 0.97


def test_a_limb_in_another_garment_s_colour_is_not_found(cases):
    case = cases[0]
    other = next(n for n in ("green", "purple") if n not in (case.spec.shirt, case.spec.trousers))
    dyed = world.render(replace(case.spec, trousers=other), case.motion, case.style_seed)
    legs = recall(case, dyed.frames)[:, 2:]
    assert np.nanmean(legs) < 0.3


def test_a_limb_behind_another_is_not_judged(cases):
    case = cases[0]
    hidden = replace(case.truth, members=np.zeros_like(case.truth.members))
    found = limb_recall(case.truth.frames, hidden, case.spec, load_judge())
    assert np.isnan(found).all()


def test_hats_are_seen_where_they_are_and_only_there():
    for case in (held_out(700 + k, 2) for k in range(12)):
        room, judge = case.room_for_a_hat(), load_judge()
        assert wears_hat(case.truth.frames, room, judge) == (case.spec.hat != NO_HAT)
        changed = NO_HAT if case.spec.hat != NO_HAT else "green"
        other = world.render(replace(case.spec, hat=changed), case.motion, case.style_seed)
        assert wears_hat(other.frames, room, judge) == (changed != NO_HAT)


def test_figures_of_true_clips_meet_every_aim_and_of_others_do_not(cases):
    judge = load_judge()
    others = cases[1:] + cases[:1]
    true = summary([clip_figures(case, case.truth.frames, judge) for case in cases])
    swapped = summary(
        [clip_figures(c, o.truth.frames, judge) for c, o in zip(cases, others, strict=True)]
    )
    evaluation, wrong = {"pose": true, "depth": true}, {"pose": swapped, "depth": swapped}
    judged = [aim for aim in AIMS if aim.path[0] in evaluation]
    assert all(aim.met(evaluation) for aim in judged)
    unmet = {aim.path[1] for aim in judged if not aim.met(wrong)}
    assert {"part_colour_accuracy", "silhouette_iou", "limb_recall", "hats_wrong"} <= unmet
    text = table({"true": evaluation, "swapped": wrong})
    assert "| limb recall, pose | **" in text and text.count("\n") == len(AIMS) + 1


def test_the_judge_finds_true_dancers_and_not_other_ones(cases):
    judge = load_judge()
    own = [silhouette_iou(c.truth.frames, c.truth.silhouette, judge) for c in cases]
    others = [
        silhouette_iou(a.truth.frames, b.truth.silhouette, judge)
        for a, b in itertools.pairwise(cases)
    ]
    assert np.mean(own) > 0.9
    assert np.mean(others) < 0.5

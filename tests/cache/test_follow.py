"""Extrapolation by the way that the latents have gone: the dot product, its rows, and the engine with it."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.latent_progress import most_progress, own_latents, per_row, way
from hgc_video.plan.cost import cost
from hgc_video.plan.policies.searched import CodedSchedule
from tests.tiny_models import CLIPS, graph_of


def test_the_way_is_measured_along_the_last_one_for_every_clip():
    draw = torch.Generator().manual_seed(0)
    older, step = torch.randn(2, 2, 4, 3, 8, 8, generator=draw)
    newer = older + step
    aside = torch.randn(step.shape, generator=draw)
    aside -= (
        (aside * step).flatten(1).sum(1).view(-1, 1, 1, 1, 1)
        * step
        / step.square().flatten(1).sum(1).view(-1, 1, 1, 1, 1)
    )
    now = newer + torch.tensor([0.5, 1.5]).view(-1, 1, 1, 1, 1) * step + 0.2 * aside
    torch.testing.assert_close(way(now, newer, older, 1.0), torch.tensor([0.5, 1.5]))
    # Noise turns the way back or beyond: it stays within a range around the count of steps.
    torch.testing.assert_close(way(now, newer, older, 4.0), torch.tensor([1.2, 1.5]))
    torch.testing.assert_close(way(newer, newer, newer, 2.0), torch.tensor([0.6, 0.6]))


def test_every_row_gets_its_clips_slope():
    like = torch.zeros(2 * 2 * 3, 4, 5, 5)  # branches, clips, frames
    slopes = per_row(torch.tensor([1.0, 2.0]), like, branches=2)
    assert slopes.shape == (12, 1, 1, 1)
    assert slopes.flatten().tolist() == [1, 1, 1, 2, 2, 2] * 2


def test_the_way_is_no_farther_than_the_most_that_is_told_of_a_step():
    older, newer, far = (torch.full((1, 3), number) for number in (0.0, 1.0, 100.0))
    # Step 6, by steps 1 and 4: two steps ahead, of three, and at most three times as far.
    assert float(way(far, newer, older, 2 / 3)) == most_progress((1, 4), 6) == 2
    assert most_progress((0, 1), 2) == 3


def test_slopes_are_of_the_features_dtype():
    like = torch.zeros(2, 4, dtype=torch.bfloat16)
    assert per_row(torch.tensor([1.5]), like, branches=2).dtype == torch.bfloat16


@pytest.mark.parametrize("branches", [1, 3])
def test_the_latents_are_of_the_last_branch_however_many_there_are(branches):
    sample = torch.arange(branches * 16.0).reshape(branches, 4, 2, 2)
    assert torch.equal(own_latents(sample, 3, branches, 2), sample[-1:, :3])


@pytest.mark.parametrize("frames_axis", [1, 2])
def test_the_latents_are_the_prompts_own_without_an_image(frames_axis):
    sample = torch.arange(2 * 6 * 6 * 4.0).reshape(2, 6, 6, 2, 2)  # as many frames as channels
    found = own_latents(sample, 4, 2, frames_axis)
    expected = sample[1:, :, :4] if frames_axis == 1 else sample[1:, :4]
    assert torch.equal(found, expected)
    assert found.untyped_storage().nbytes() == found.nbytes  # not a view that keeps the whole input


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("word", ["FFHFHH", "F1F1HH"])
def test_on_a_straight_way_it_is_the_count_of_steps(kind, word):
    clip = CLIPS[kind]()
    # Latents are in proportion to 500 + t: evenly spaced, then four times as far, and to noise's end.
    clip.timesteps = torch.tensor([900, 800, 700, 600, 500, 400])
    online, counted = (CodedSchedule(word, 4, (0.5,) * 6, online=o) for o in (True, False))
    assert_same(clip, online, counted)


@pytest.mark.parametrize("kind", ["motion", "image"])
def test_on_uneven_steps_it_is_the_distance(kind):
    clip = CLIPS[kind]()
    clip.timesteps = torch.tensor([900, 800, 600])
    online, counted = (
        CodedSchedule("FF1", 4, (0.0, 0.0, d), online=o) for d, o in ((0.5, True), (1.0, False))
    )
    assert_same(clip, online, counted)


def test_the_latents_that_are_followed_are_kept_as_planned():
    clip = CLIPS["svd"]()
    graph, found, planned = graph_of(clip), [], []
    for online in (True, False):
        schedule = CodedSchedule("FF1H1", 9, (0.5,) * 5, online=online)(graph, 5)
        planned.append(cost(graph, schedule).nbytes)
        found.append([])
        with attach(schedule, graph=graph, unet=clip.unet) as engine:
            for i, t in enumerate(clip.timesteps):
                engine.at(i)
                clip.step(t)
                found[-1].append(engine.store.nbytes)
    more = [[a - b for a, b in zip(*told, strict=True)] for told in (found, planned)]
    assert more[0] == more[1]
    assert max(more[0]) > 0


def assert_same(clip, *plans):
    graph, outputs = graph_of(clip), []
    for plan in plans:
        schedule = plan(graph, len(clip.timesteps))
        parts = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
        with attach(schedule, **parts) as engine:
            outputs.append(clip.run(engine))
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not torch.equal(outputs[0][-1], clip.run()[-1])  # something was reused

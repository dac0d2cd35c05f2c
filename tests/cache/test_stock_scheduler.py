"""A scheduler of a stock loop is followed step by step, and put back."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from hgc_video.cache.finite import FiniteLatents
from hgc_video.cache.stock_loop import SchedulerListener
from hgc_video.errors import NumericalError

LATENTS = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)


class Heard:
    """A listener on a scheduler and what it told, as it came."""

    def __init__(self, scheduler=None, steps=3):
        self.scheduler, self.told, self.latents = scheduler or DDIMScheduler(), [], []
        self.scheduler.set_timesteps(steps)
        finite = FiniteLatents(steps, lambda step: "full")
        self.listener = SchedulerListener(self.scheduler, self.begins, self.ends, finite)

    def begins(self, index, latents):
        self.told.append(index)
        self.latents.append(latents)

    def ends(self):
        self.told.append("end")

    def step(self, sample, scalings=1, **options):
        """One step of a loop, whose models give what they get."""
        t = self.scheduler.timesteps[self.listener.index]
        for _ in range(scalings):
            scaled = self.scheduler.scale_model_input(sample, timestep=t)
        self.told.append("models")
        return scaled, self.scheduler.step(scaled, t, sample, **options)


def test_a_new_listener_has_done_nothing_to_the_scheduler():
    heard = Heard()
    before = dict(vars(heard.scheduler))
    made = SchedulerListener(heard.scheduler, heard.begins, heard.ends, heard.listener.finite)
    assert vars(heard.scheduler) == before and made.index == 0
    assert made.scheduler is heard.scheduler and made.finite is heard.listener.finite
    made.stop()
    assert vars(heard.scheduler) == before and heard.told == []


def test_every_step_begins_before_its_models_and_ends_behind_them():
    heard, stock = Heard(EulerDiscreteScheduler()), EulerDiscreteScheduler()
    stock.set_timesteps(3)
    heard.listener.start()
    ours = theirs = LATENTS
    for index, t in enumerate(stock.timesteps):
        assert heard.listener.index == index
        scaled, done = heard.step(ours)
        expected = stock.scale_model_input(theirs, t)
        assert torch.equal(scaled, expected) and not torch.equal(scaled, ours)
        assert heard.latents[index] is scaled, "as the models get them"
        ours, theirs = done.prev_sample, stock.step(expected, t, theirs).prev_sample
        assert torch.equal(ours, theirs)
    assert heard.told == [0, "models", "end", 1, "models", "end", 2, "models", "end"]
    assert heard.listener.index == 3


@pytest.mark.parametrize("return_dict", [True, False])
def test_what_the_scheduler_gives_is_handed_on_as_it_is(return_dict):
    heard = Heard()
    heard.listener.start()
    _, done = heard.step(LATENTS, return_dict=return_dict)
    assert isinstance(done, tuple) != return_dict
    assert done[0].shape == LATENTS.shape


def test_latents_that_are_scaled_a_second_time_within_a_step_begin_no_other():
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS, scalings=3)
    heard.step(LATENTS, scalings=2)
    assert heard.told == [0, "models", "end", 1, "models", "end"]


def test_a_step_without_scaling_is_counted_and_neither_begins_nor_ends():
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS, scalings=1)
    heard.scheduler.step(LATENTS, heard.scheduler.timesteps[1], LATENTS)
    assert heard.told == [0, "models", "end"] and heard.listener.index == 2
    heard.step(LATENTS)
    assert heard.told[3:] == [2, "models", "end"]


def test_a_step_ends_before_the_scheduler_makes_it():
    heard = Heard()
    heard.listener.start()
    t = heard.scheduler.timesteps[0]
    heard.scheduler.scale_model_input(LATENTS, t)
    heard.scheduler.num_inference_steps = None  # which the scheduler refuses
    with pytest.raises(ValueError, match="Number of inference steps"):
        heard.scheduler.step(LATENTS, t, LATENTS)
    assert heard.told == [0, "end"] and heard.listener.index == 0


def test_the_scheduler_is_put_back_and_the_count_goes_on_where_it_stopped():
    heard = Heard()
    before = dict(vars(heard.scheduler))
    heard.listener.start()
    assert {"step", "scale_model_input"} <= vars(heard.scheduler).keys()
    heard.step(LATENTS)
    heard.listener.stop()
    assert vars(heard.scheduler) == before
    heard.scheduler.scale_model_input(LATENTS, 1)
    heard.scheduler.step(LATENTS, heard.scheduler.timesteps[0], LATENTS)
    assert heard.told == [0, "models", "end"] and heard.listener.index == 1
    heard.listener.stop()
    heard.listener.start()
    heard.step(LATENTS)
    heard.listener.stop()
    assert heard.told[3:] == [1, "models", "end"] and vars(heard.scheduler) == before


@pytest.mark.parametrize("return_dict", [True, False])
def test_latents_that_are_not_finite_are_told_with_their_step(return_dict):
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS)
    broken, t = torch.full_like(LATENTS, math.nan), heard.scheduler.timesteps[1]
    with pytest.raises(NumericalError, match=r"NaN after step 2 of 3 \(full, float32\)"):
        heard.scheduler.step(broken, t, LATENTS, return_dict=return_dict)
    assert heard.listener.index == 1
    noise = {"eta": 1.0, "variance_noise": broken}  # which is in the latents alone
    with pytest.raises(NumericalError, match="NaN after step 2 of 3"):
        heard.scheduler.step(LATENTS, t, LATENTS, return_dict=return_dict, **noise)

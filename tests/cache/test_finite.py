"""Latents that are not finite end the run, with the step, what was done there, and what to do."""

from __future__ import annotations

import math

import pytest
import torch

from hgc_video.cache.finite import FiniteLatents
from hgc_video.errors import HGCVideoError, NumericalError


def done_at(step):
    return f"what was done at {step}"


def latents(value=0.0, dtype=torch.float32):
    """Many numbers, of which one is this."""
    made = torch.ones(1, 2, 3, dtype=dtype)
    made[0, 1, 2] = value
    return made


def fault(finite, *seen):
    with pytest.raises(NumericalError) as told:
        finite.see(*seen)
    return str(told.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_finite_latents_of_any_size_pass_and_nothing_is_asked_of_the_steps(dtype):
    finite = FiniteLatents(3, lambda step: pytest.fail(f"asked for step {step}"))
    finite.settle()  # before anything was seen
    most = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    for step, value in enumerate((0.0, most, -most, torch.finfo(dtype).tiny)):
        finite.see(step, latents(value, dtype))
        finite.settle()
    finite.see(4, torch.zeros(2, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")]
)
def test_the_step_and_what_was_done_there_are_told(value, what):
    finite = FiniteLatents(25, done_at)
    finite.see(3, latents())
    assert fault(finite, 4, latents(value)) == (
        f"the latents are {what} after step 5 of 25 (what was done at 4, float32); try preset "
        '"off": where that is finite, choose a policy that extrapolates less, else check the model, its '
        "LoRAs and the scheduler"
    )


def test_where_one_is_no_number_and_one_is_infinite_it_is_no_number():
    both = latents(math.inf)
    both[0, 0, 0] = math.nan
    assert fault(FiniteLatents(2, done_at), 0, both).startswith(
        "the latents are NaN after step 1 of 2"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_of_a_dtype_with_the_range_the_model_is_to_be_checked(dtype):
    said = fault(FiniteLatents(2, done_at), 1, latents(math.inf, dtype))
    name = str(dtype).partition(".")[2]
    assert f"after step 2 of 2 (what was done at 1, {name}); try preset" in said
    assert said.endswith(", else check the model, its LoRAs and the scheduler")


def test_of_half_precision_a_wider_one_is_advised():
    said = fault(FiniteLatents(2, done_at), 0, latents(math.nan, torch.float16))
    assert "(what was done at 0, float16); try preset" in said
    assert said.endswith(", else give dtype bfloat16 or float32")


def test_what_a_step_did_is_asked_once_and_for_that_step_alone():
    asked = []
    fault(FiniteLatents(9, lambda step: asked.append(step) or "it"), 7, latents(math.nan))
    assert asked == [7]


def test_a_fault_that_was_told_is_not_told_again():
    finite = FiniteLatents(3, done_at)
    fault(finite, 0, latents(math.nan))
    finite.settle()
    finite.see(1, latents())
    assert "after step 3 of 3 (what was done at 2," in fault(finite, 2, latents(math.nan))


def test_latents_are_only_looked_at():
    given = latents(5.0)
    before = given.clone()
    FiniteLatents(1, done_at).see(0, given)
    assert torch.equal(given, before) and given._version == 1  # of the one write of this test


def test_the_error_is_one_of_ours_and_one_of_arithmetic():
    finite = FiniteLatents(1, done_at)
    for kind in (HGCVideoError, ArithmeticError):
        with pytest.raises(kind):
            finite.see(0, latents(math.inf))

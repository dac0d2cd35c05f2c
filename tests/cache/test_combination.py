"""What is read of the last values: held, by a slope, by another rule, and as far as the latents have come."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.combination import combined
from hgc_video.plan.coefficients import linear

# Rows of two branches, two clips and one frame: the newest first.
NEW, OLD, OLDEST = (
    torch.tensor(n)[:, None] for n in ([4.0, 8, 2, 6], [3.0, 4, 2, 8], [1.0, 0, 4, 4])
)
TWICE = torch.tensor([2.0, 0.5])  # the clips' progress


def numbers(coefficients, progress=None, values=(NEW, OLD, OLDEST)):
    return combined(values, coefficients, progress, 2).flatten().tolist()


def test_without_coefficients_the_newest_is_held():
    assert combined([NEW, OLD], (), TWICE, 2) is NEW


def test_a_slope_goes_on_from_the_newest_by_the_last_change():
    assert numbers(linear(0.5)) == [4.5, 10, 2, 5]
    assert numbers(linear(0.5), TWICE) == [5, 9, 2, 5.5]  # 0.5 * 2 and 0.5 * 0.5 of the change


def test_another_rule_adds_up_as_many_values_as_it_has_coefficients():
    rule = (2.0, -3.0, 0.5)
    assert numbers(rule) == [-0.5, 4, 0, -10]
    # From the newest, by the clip's progress times what the rule adds to it.
    assert numbers(rule, TWICE) == [-5, 6, -2, -2]


def test_two_coefficients_need_not_be_a_slope_and_one_is_a_factor():
    assert numbers((2.0, 0.5), values=(NEW, OLD)) == [9.5, 18, 5, 16]
    assert numbers((0.5,), values=(NEW,)) == [2, 4, 1, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_coefficients_that_cancel_do_not_lose_what_half_precision_has(dtype):
    values = [torch.tensor([[1.0]], dtype=dtype)] * 3
    mixed = combined(values, (70001.0, -140000.0, 70000.0), None, 1)
    assert mixed.dtype == dtype and mixed.tolist() == [[1.0]]


def test_double_precision_is_not_given_up():
    third = torch.tensor([[1 / 3]], dtype=torch.float64)
    mixed = combined([third, third, third], (0.5, 0.25, 0.25), None, 1)
    assert mixed.dtype == torch.float64 and torch.equal(mixed, third)


@pytest.mark.parametrize("coefficients", [linear(0.5), (2.0, -3.0, 0.5)])
def test_what_is_kept_is_never_written_to(coefficients):
    values = [value.clone() for value in (NEW, OLD, OLDEST)]
    combined(values, coefficients, TWICE, 2)
    assert all(map(torch.equal, values, (NEW, OLD, OLDEST)))

"""Numbers on their way to the host, where there is no way to go."""

from __future__ import annotations

import math

import pytest
import torch

from hgc_video.cache.late_numbers import LateNumbers, largest


def test_numbers_of_any_dtype_are_read_as_those_of_single_precision():
    """As they are on a GPU, whose pinned copy is of that dtype."""
    third = torch.tensor([1 / 3], dtype=torch.float64)
    assert LateNumbers(third).read() == [float(third.float())] != [1 / 3]
    read = LateNumbers(torch.tensor([3, -2])).read()
    assert read == [3.0, -2.0] and all(type(number) is float for number in read)


def test_numbers_can_be_read_more_than_once():
    late = LateNumbers(torch.tensor([1.5, 2.5]))
    assert late.read() == late.read() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 7.0, -3.0], 7), ([1.0, 3.0, -7.0], 7), ([-7.0, -9.0], 9)]
)
def test_the_largest_magnitude_may_be_of_either_sign(values, expected):
    found = largest(torch.tensor(values))
    assert found.shape == () and float(found) == expected


def test_the_largest_of_what_is_not_a_number_is_none():
    assert math.isnan(largest(torch.tensor([1.0, math.nan])))
    assert float(largest(torch.tensor([1.0, -math.inf]))) == math.inf

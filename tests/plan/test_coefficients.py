"""Coefficients that are carried to other distances, against the polynomials that they stand for."""

from __future__ import annotations

from math import prod

import pytest

from hgc_video.plan.coefficients import carried, linear


def lagrange(nodes, step):
    """The coefficients of the polynomial through values at `nodes`, at a step."""
    return tuple(
        prod((step - other) / (node - other) for other in nodes if other != node) for node in nodes
    )


THERE, HERE = ([7, 6, 4, 1], 9), ([20, 17, 15, 11], 22)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_polynomial_is_carried_as_the_polynomial(count):
    (nodes, step), (others, at) = THERE, HERE
    made = carried(lagrange(nodes[:count], step), THERE, HERE)
    assert made == pytest.approx(lagrange(others[:count], at), abs=1e-5)
    assert carried(made, HERE, THERE) == pytest.approx(lagrange(nodes[:count], step), abs=1e-3)


def test_a_share_of_an_extrapolation_stays_a_share_with_five_digits():
    """A third of the line: from neighbours 1/3 of their change, from values two steps apart half of that."""
    near, far = ([3, 2], 4), ([5, 3], 6)
    assert carried(linear(1 / 3), near, far) == (1.16667, -0.16667)
    assert carried((0.5, 0.0), near, far) == (0.5, 0.0), "half of what is held"


def test_of_fewer_values_there_are_the_terms_that_they_have():
    """A line and half of what the parabola adds to it: where two values are kept the line."""
    nodes, step = THERE
    line, parabola = (*lagrange(nodes[:2], step), 0.0), lagrange(nodes[:3], step)
    half = tuple((a + b) / 2 for a, b in zip(line, parabola, strict=True))
    assert carried(half, THERE, ([9, 8], 10)) == (2.0, -1.0)
    assert carried(half, THERE, ([9], 10)) == (1.0,)

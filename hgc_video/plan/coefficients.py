"""Coefficients of a linear combination of the last kept values, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Coefficients = tuple[float, ...]
Place = tuple[Sequence[int], int]  # the steps of the kept values, the newest first, and the step


def linear(slope: float) -> Coefficients:
    """The coefficients of F1 + slope * (F1 - F2); of a slope of 0, which holds F1, none."""
    return (1.0 + slope, -slope) if slope else ()


def slope_of(coefficients: Coefficients) -> float | None:
    """The slope whose `linear` these coefficients are; None where they are another rule's."""
    if len(coefficients) != 2 or coefficients[0] != 1.0 - coefficients[1]:
        return None
    return -coefficients[1]


def carried(coefficients: Coefficients, there: Place, here: Place) -> Coefficients:
    """Coefficients for a step and kept values at other distances.

    They are a share of F1, a share of the linear extrapolation from F1 and F2, a share of what the parabola
    through three values adds to that, and so on: these shares are carried over. Where there are fewer kept
    values, the terms of higher order are left out.
    """
    rows = _newton(there[0][: len(coefficients)], there[1])
    rest, shares = list(coefficients), [0.0] * len(coefficients)
    for k in reversed(range(len(rest))):
        shares[k] = rest[k] / rows[k][k]
        rest = [value - shares[k] * own for value, own in zip(rest, rows[k], strict=True)]
    nodes = here[0][: len(coefficients)]
    made = [0.0] * len(nodes)
    for share, row in zip(shares, _newton(nodes, here[1]), strict=False):
        made = [value + share * own for value, own in zip(made, row, strict=True)]
    return tuple(round(value, 5) for value in made)


def _newton(nodes: Sequence[int], step: int) -> list[list[float]]:
    """The coefficients of Newton's terms of the polynomial through values at `nodes`, at a step: row k is
    prod over m < k of (step - node m), times the divided difference of the first k + 1 values."""
    rows = []
    for k in range(len(nodes)):
        ahead = prod(step - node for node in nodes[:k])
        used = nodes[: k + 1]
        row = [ahead / prod(node - other for other in used if other != node) for node in used]
        rows.append(row + [0.0] * (len(nodes) - k - 1))
    return rows

"""The best linear rule for a row of key steps, in closed form from products that were measured once.

With the mean products of all steps' values, <F_i, F_j>, no value is needed again: every row of keys, and
what it costs in error, follows from a small system of equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .coefficients import linear
from .least_squares import Matrix, solve


@dataclass(frozen=True)
class Fit:
    """Coefficients of the values of the key steps, the newest first, and the mean square of their error."""

    coefficients: tuple[float, ...]
    error: float


def fitted(
    products: Matrix, keys: Sequence[int], step: int, *, terms: int = 3, ridge: float = 1e-3,
    slope: float = 0.5, free_sum: bool = True,
) -> Fit:  # fmt: skip
    """The coefficients of the last `terms` of `keys` (oldest first) that are nearest to a step's value, of
    which `ridge` times their mean distance from the rule of a slope is the price: so many times the mean
    square change between the last two keys. `slope` is a share of the linear extrapolation to the step.
    Without `free_sum` the coefficients add up to 1."""
    nodes = list(reversed(keys[-terms:]))
    prior = _sloped(nodes, step, slope)
    if len(nodes) == 1:
        return Fit(prior, squared_error(products, nodes, step, prior))
    newer, older = nodes[:2]
    change = products[newer][newer] - 2 * products[newer][older] + products[older][older]
    # The first coefficient stands for the sum: F1 and differences to it, which are of the ridge's size.
    basis = [{newer: 1.0}] * free_sum + [{newer: 1.0, node: -1.0} for node in nodes[1:]]
    rest = _difference({step: 1.0}, dict(zip(nodes, prior, strict=True)))
    normal = [
        [_product(products, one, other) + ridge * change * (i == j)
         for j, other in enumerate(basis)]
        for i, one in enumerate(basis)
    ]  # fmt: skip
    found = solve(normal, [_product(products, one, rest) for one in basis])
    first, others = sum(found), [-value for value in found[int(free_sum) :]]
    coefficients = tuple(p + d for p, d in zip(prior, (first, *others), strict=True))
    return Fit(coefficients, squared_error(products, nodes, step, coefficients))


def squared_error(
    products: Matrix, nodes: Sequence[int], step: int, coefficients: Sequence[float]
) -> float:
    """The mean square of a step's value less a combination of those of `nodes`."""
    missed = _difference({step: 1.0}, dict(zip(nodes, coefficients, strict=True)))
    return max(_product(products, missed, missed), 0.0)


def _sloped(nodes: Sequence[int], step: int, slope: float) -> tuple[float, ...]:
    """The rule of a slope, for as many nodes as there are."""
    if len(nodes) == 1:
        return (1.0,)
    newer, older = nodes[:2]
    two = linear(slope * (step - newer) / (newer - older)) or (1.0, 0.0)
    return (*two, *[0.0] * (len(nodes) - 2))


def _difference(one: dict[int, float], other: dict[int, float]) -> dict[int, float]:
    return {key: one.get(key, 0.0) - other.get(key, 0.0) for key in {*one, *other}}


def _product(products: Matrix, one: dict[int, float], other: dict[int, float]) -> float:
    return sum(a * b * products[i][j] for i, a in one.items() for j, b in other.items())

"""How a model's predictions follow one another along the noise levels, as it was measured once: what a
forecast of a step from earlier ones is made of, and what it is wrong by, before anything of a run is known.

Mean products of the predictions at the steps of one run tell this for the steps of any run: between measured
noise levels the predictions are interpolated by cubics, and products of sums are sums of products.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from math import cos, pi, prod, sin, sqrt
from typing import Any

from ..errors import PlanError
from .calibration import Calibration
from .guard_data import shipped_guard
from .least_squares import Matrix
from .linear_fit import fitted

_NODES = 4  # of a cubic
_LEAST_SHARE = 0.05  # at the ends of the noise levels an error would count without bound


@dataclass(frozen=True)
class PredictionPath:
    """The path of a model's guided predictions, by noise angle: atan(sigma / alpha) of latents
    x = alpha x0 + sigma noise, pi / 2 at pure noise.

    angles: of the measured steps, falling. products: of the predictions of every two of them, the mean of
    their product. prices: per step what an error of 1 in its prediction makes of the final latents, as a
    share of their standard deviation, for every unit that the latents turn at the step.
    """

    angles: tuple[float, ...]
    products: tuple[tuple[float, ...], ...]
    prices: tuple[float, ...]

    def weights(self, angle: float) -> dict[int, float]:
        """The measured steps that a prediction at an angle is interpolated from, with their weights."""
        after = bisect_left([-known for known in self.angles], -angle)
        first = max(0, min(after - _NODES // 2, len(self.angles) - _NODES))
        near = range(first, min(first + _NODES, len(self.angles)))
        return {
            i: prod(
                (angle - self.angles[j]) / (self.angles[i] - self.angles[j]) for j in near if j != i
            )
            for i in near
        }

    def price(self, angle: float) -> float:
        """The price at an angle, between measured ones on the line through both."""
        after = bisect_left([-known for known in self.angles], -angle)
        if after in (0, len(self.angles)):
            return self.prices[min(after, len(self.angles) - 1)]
        one, other = self.angles[after - 1], self.angles[after]
        share = (one - angle) / (one - other)
        return (1 - share) * self.prices[after - 1] + share * self.prices[after]


@dataclass
class RunPath:
    """The path at the steps of a run, added one by one.

    noise: of what the sampler adds afresh at every step, the mean square that it changes a prediction by.
    """

    path: PredictionPath
    noise: float = 0.0
    angles: list[float] = field(default_factory=list)
    _weights: list[dict[int, float]] = field(default_factory=list)
    _products: list[list[float]] = field(default_factory=list)
    _turned: float = 0.0

    def add(self, angle: float) -> None:
        """The next step, at this noise angle."""
        weights = self.path.weights(angle)
        self.angles.append(angle)
        self._weights.append(weights)
        known = self.path.products
        row = [
            sum(a * b * known[i][j] for i, a in weights.items() for j, b in other.items())
            for other in self._weights
        ]
        for before, value in zip(self._products, row, strict=False):
            before.append(value)
        self._products.append(row)

    def price(self, step: int, last: bool) -> float:
        """What an error of 1 in a step's prediction makes of the final latents, as a share of their
        deviation, if the latents turn as far at it as at the step before; at the last one all the way."""
        angle = self.angles[step]
        before = self.angles[step - 1] if step else pi / 2
        turn = angle if last else min(abs(before - angle), angle)
        return turn * self.path.price(angle)

    def coefficients(self, keys: Sequence[int], step: int, terms: int) -> tuple[float, ...]:
        """Of the best forecast of a step from the last `terms` of `keys` (oldest first), the newest first."""
        nodes = [*keys[-terms:], step]
        known = {i: {j: self.product(i, j, nodes[0]) for j in nodes} for i in nodes}
        return fitted(known, nodes[:-1], step, terms=terms).coefficients  # type: ignore[arg-type]

    def squared(self, combination: Mapping[int, float]) -> float:
        """The mean square of a sum of predictions, given as steps and factors."""
        return self.smooth(combination) + self.noise * self.walked(combination)

    def smooth(self, combination: Mapping[int, float]) -> float:
        """The same without the noise that is added at every step."""
        rows, terms = self._products, combination.items()
        return max(0.0, sum(a * b * rows[i][j] for i, a in terms for j, b in terms))

    @staticmethod
    def walked(combination: Mapping[int, float]) -> float:
        """The mean square where predictions change by a step of a random walk of mean square 1 each."""
        oldest, terms = min(combination, default=0), combination.items()
        return max(0.0, sum(a * b * (min(i, j) - oldest) for i, a in terms for j, b in terms))

    def product(self, one: int, other: int, oldest: int = 0) -> float:
        """The mean product of two steps' predictions, with the noise that both have since the oldest."""
        return self._products[one][other] + self.noise * (min(one, other) - oldest)


@cache
def shipped_paths() -> dict[str, PredictionPath]:
    """The embedded model's, by type of prediction: `path` in configs/schedules/guard.yaml, which
    scripts/bench_guard.py writes."""
    measured = shipped_guard()["path"]
    return paths_of(**{name: measured[name] for name in ("angles", "sensitivity", "products_as")})


def path_data(measured: Calibration) -> dict[str, Any]:
    """What `shipped_paths` reads, of a calibration of a model that predicts v; PlanError where it is none."""
    if not measured.products_as:
        raise PlanError(
            "the calibration holds no products by type of prediction; make one with hgc-video calibrate"
        )
    return {
        "angles": [float(f"{angle:.6g}") for angle in measured.angles],
        "sensitivity": list(measured.sensitivity),
        # Differences of neighbours are what counts of them: four digits would not do.
        "products_as": {
            kind: [[float(f"{value:.8g}") for value in row] for row in rows]
            for kind, rows in measured.products_as.items()
        },
    }


def path_of(measured: Calibration) -> PredictionPath:
    """The path in a calibration, of the predictions as the model makes them; PlanError where it has none."""
    if not measured.products:
        raise PlanError(
            "the calibration holds no products of predictions; make one with hgc-video calibrate"
        )
    angles = measured.angles or equal_turns(len(measured.products))
    return _path(angles, measured.products, measured.sensitivity)


def paths_of(
    angles: Sequence[float], sensitivity: Sequence[float], products_as: Mapping[str, Matrix]
) -> dict[str, PredictionPath]:
    """The paths of the predictions as models of every type would make them, by the type as diffusers names
    it, of what a calibration of a model that predicts v holds."""
    made = {}
    for kind, products in products_as.items():
        own = _path(angles, products, sensitivity)
        prices = [
            price / max(share_of_turn(kind, angle), _LEAST_SHARE)
            for price, angle in zip(own.prices, own.angles, strict=True)
        ]
        made[kind] = PredictionPath(own.angles, own.products, tuple(prices))
    return made


def _path(
    angles: Sequence[float], products: Matrix, sensitivity: Sequence[float]
) -> PredictionPath:
    """Of every two steps the product is read in the later one's row."""
    steps = range(len(angles))
    turns = [one - other for one, other in pairwise([*angles, 0.0])]
    if not (len(steps) == len(products) == len(sensitivity)) or not all(turn > 0 for turn in turns):
        raise PlanError(
            "the calibration's noise angles, products and sensitivity are not of the same falling steps; "
            "make one with hgc-video calibrate"
        )
    if any(len(row) <= step for step, row in enumerate(products)) or min(sensitivity) < 0:
        raise PlanError(
            "the calibration's products or sensitivity are none; make one with hgc-video calibrate"
        )
    prices = (sqrt(value) / turn for value, turn in zip(sensitivity, turns, strict=True))
    whole = (tuple(products[max(i, j)][min(i, j)] for j in steps) for i in steps)
    return PredictionPath(tuple(angles), tuple(whole), tuple(prices))


def share_of_turn(kind: str, angle: float) -> float:
    """What a prediction of a type has of an error of 1 in v, by which latents turn along the angle
    (dx / dphi = v): alpha of it where noise is predicted, sigma where x0 is."""
    return {"epsilon": cos(angle), "sample": sin(angle)}.get(kind, 1.0)


def equal_turns(steps: int) -> tuple[float, ...]:
    """Noise angles of a run whose steps turn the latents by the same each."""
    return tuple(pi / 2 * (1 - i / steps) for i in range(steps))

"""The tolerance of `guard` for an asked PSNR: monotone maps that were fitted to measured runs, as data; one
for samplers that add noise at their steps, and one for those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import exp, log
from statistics import quantiles

from ..errors import InputError, PresetError
from .guard_data import shipped_guard

_LEAST_SLOPE = 2.0  # dB that the PSNR falls by at least where the tolerance grows e times


@dataclass(frozen=True)
class QualityMap:
    """PSNR to the uncached clip, rising, and the tolerance that gave it, falling; between them the logarithm
    of the tolerance is interpolated."""

    psnr_db: tuple[float, ...]
    tolerance: tuple[float, ...]

    def tolerance_of(self, psnr_db: float) -> float:
        """The tolerance for an asked PSNR; PresetError beyond what was measured."""
        least, most = self.psnr_db[0], self.psnr_db[-1]
        if not least <= psnr_db <= most:  # nor is NaN
            raise PresetError(
                f"quality={psnr_db:g}dB is not possible; ask for {least:g} to {most:g} dB, or give "
                "guard:tolerance=... itself"
            )
        return float(f"{exp(_at(psnr_db, self.psnr_db, list(map(log, self.tolerance)))):.4g}")

    def psnr_of(self, tolerance: float) -> float:
        """The PSNR that stands for a tolerance; beyond the map's ends as on the line through the last two."""
        falling = [-log(known) for known in self.tolerance]
        return round(_at(-log(tolerance), falling, self.psnr_db), 1)


def map_name(adds_noise: bool) -> str:
    """What the map for a kind of sampler is called."""
    return "noisy" if adds_noise else "deterministic"


@cache
def shipped_map(adds_noise: bool = False) -> QualityMap:
    """The map for a kind of sampler in configs/schedules/guard.yaml, which scripts/bench_guard.py writes."""
    told = shipped_guard()["maps"][map_name(adds_noise)]
    return QualityMap(tuple(told["psnr_db"]), tuple(told["tolerance"]))


def fitted_map(runs: Sequence[tuple[float, float]], asked: Sequence[float]) -> QualityMap:
    """A map at these PSNRs from runs, given as tolerance and PSNR: through the PSNR that three in four runs
    reach at every tolerance, made monotone; beyond them 20 dB for ten times the tolerance. InputError without
    a run."""
    if not runs:
        raise InputError("no run reused anything, so that no map can be fitted; measure more")
    by_tolerance: dict[float, list[float]] = {}
    for tolerance, psnr in runs:
        by_tolerance.setdefault(tolerance, []).append(psnr)
    points = _falling(
        [(log(tolerance), _reached(of)) for tolerance, of in sorted(by_tolerance.items())]
    )
    (first, best), (last, worst) = points[0], points[-1]
    # One more point on either side, half the tolerance and twice it.
    points = [(first - log(2), best + 6.02), *points, (last + log(2), worst - 6.02)]
    made = sorted(map(float, asked))
    known_db, known = [psnr for _, psnr in reversed(points)], [at for at, _ in reversed(points)]
    tolerances = tuple(float(f"{exp(_at(db, known_db, known)):.4g}") for db in made)
    return QualityMap(tuple(made), tolerances)


def _reached(psnr_db: list[float]) -> float:
    """What three in four runs reach: their lower quartile."""
    return quantiles(psnr_db, n=4, method="inclusive")[0] if len(psnr_db) > 1 else psnr_db[0]


def _falling(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of rising place with values that fall: neighbours that do not are one, at their mean."""
    kept: list[tuple[float, float, int]] = []
    for place, value in points:
        kept.append((place, value, 1))
        while len(kept) > 1 and kept[-1][1] > kept[-2][1] - _LEAST_SLOPE * (
            kept[-1][0] - kept[-2][0]
        ):
            (p, v, n), (q, w, m) = kept[-2:]
            kept[-2:] = [((n * p + m * q) / (n + m), (n * v + m * w) / (n + m), n + m)]
    return [(place, value) for place, value, _ in kept]


def _at(x: float, known: Sequence[float], values: Sequence[float]) -> float:
    """On the line through the two known places (rising) that x lies between, or the last two on its side."""
    pairs = list(pairwise(zip(known, values, strict=True)))
    (low, one), (high, other) = next((p for p in pairs if x <= p[1][0]), pairs[-1])
    return one + (other - one) * (x - low) / (high - low)

"""The tolerance of `guard` for an asked PSNR: a monotone map that was fitted to measured runs, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, isfinite, log, log10

import yaml

from ..errors import InputError, PresetError
from ..files import package_data


@dataclass(frozen=True)
class QualityMap:
    """PSNR to the uncached clip, rising, and the tolerance that gave it, falling; between them the logarithm
    of the tolerance is interpolated."""

    psnr_db: tuple[float, ...]
    tolerance: tuple[float, ...]

    def tolerance_of(self, psnr_db: float) -> float:
        """The tolerance for an asked PSNR; PresetError beyond what was measured."""
        least, most = self.psnr_db[0], self.psnr_db[-1]
        if not isfinite(psnr_db) or not least <= psnr_db <= most:
            raise PresetError(
                f"quality={psnr_db:g}dB is not possible; ask for {least:g} to {most:g} dB, or give "
                "guard:tolerance=... itself"
            )
        above = next(i for i, known in enumerate(self.psnr_db) if known >= psnr_db)
        if not above:
            return self.tolerance[0]
        low, high = self.psnr_db[above - 1], self.psnr_db[above]
        share = (psnr_db - low) / (high - low)
        ends = (log(self.tolerance[i]) for i in (above - 1, above))
        one, other = ends
        return float(f"{exp((1 - share) * one + share * other):.4g}")


def psnr_of(known: QualityMap, tolerance: float) -> float:
    """The PSNR that stands for a tolerance, on the line through the map's ends."""
    (first, last), (t_first, t_last) = (
        known.psnr_db[:: len(known.psnr_db) - 1],
        known.tolerance[:: len(known.tolerance) - 1],
    )
    share = log(tolerance / t_first) / log(t_last / t_first)
    return round(first + share * (last - first), 1)


def tolerance_of(psnr_db: float) -> float:
    """The tolerance for an asked PSNR by the map that the package ships."""
    return shipped_map().tolerance_of(psnr_db)


@cache
def shipped_map() -> QualityMap:
    """The map in configs/schedules/guard.yaml, which scripts/bench_guard.py writes."""
    data = yaml.safe_load((package_data("schedules") / "guard.yaml").read_text())
    return QualityMap(tuple(data["psnr_db"]), tuple(data["tolerance"]))


def fitted_map(runs: Sequence[tuple[float, float]], asked: Sequence[float]) -> QualityMap:
    """A map from runs, given as tolerance and PSNR, at these PSNRs: 20 dB a decade, as of an error that is as
    large as the tolerance, through the run whose PSNR was least for its tolerance, so that all are as good as
    asked. InputError without a run.

    A line of least squares is flatter, as on smooth paths large tolerances are not used up; under fresh noise
    they are, and its tolerances were too large there by 12 dB.
    """
    if not runs:
        raise InputError("no run reused anything, so that no map can be fitted; measure more")
    at_one = min(psnr + 20 * log10(tolerance) for tolerance, psnr in runs)
    made = sorted(asked)
    return QualityMap(
        tuple(map(float, made)), tuple(float(f"{10 ** ((at_one - db) / 20):.4g}") for db in made)
    )

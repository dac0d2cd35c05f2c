"""The tolerance of `guard` for an asked PSNR: a monotone map that was fitted to measured runs, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, isfinite, log

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


def tolerance_of(psnr_db: float) -> float:
    """The tolerance for an asked PSNR by the map that the package ships."""
    return shipped_map().tolerance_of(psnr_db)


@cache
def shipped_map() -> QualityMap:
    """The map in configs/schedules/guard.yaml, which scripts/bench_guard.py writes."""
    data = yaml.safe_load((package_data("schedules") / "guard.yaml").read_text())
    return QualityMap(tuple(data["psnr_db"]), tuple(data["tolerance"]))


def fitted_map(runs: Sequence[tuple[float, float]], asked: Sequence[float]) -> QualityMap:
    """A map from runs, given as tolerance and PSNR: the line of PSNR over the logarithm of the tolerance by
    least squares, at these PSNRs. A slope of -20 dB a decade is that of an error that is as large as the
    tolerance; the line falls in any case, so that the map is monotone."""
    if len({tolerance for tolerance, _ in runs}) < 2:
        raise InputError(
            f"{len(runs)} runs that reused something are too few for a map; measure more"
        )
    logs, psnr = [log(t) for t, _ in runs], [p for _, p in runs]
    mean_log, mean_psnr = sum(logs) / len(logs), sum(psnr) / len(psnr)
    spread = sum((x - mean_log) ** 2 for x in logs)
    slope = sum((x - mean_log) * (y - mean_psnr) for x, y in zip(logs, psnr, strict=True)) / spread
    slope = min(slope, -1.0)
    made = sorted(asked)
    tolerances = (float(f"{exp(mean_log + (db - mean_psnr) / slope):.4g}") for db in made)
    return QualityMap(tuple(map(float, made)), tuple(tolerances))

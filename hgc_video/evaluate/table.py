"""Means over clips and noises, the best that can be had at every saving, and the table of both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np

from .perceptual import frechet_distance

_MEANS = ("macs_saved", "ssim", "structure_distance", "converged_db", "colours", "iou", "flicker")
# Columns that a table has where any of its rows has a figure, with their digits.
_OPTIONAL = {
    "control": ("control overlap", 3), "lpips": ("LPIPS", 4), "clip_score": ("CLIP score", 2),
    "frechet": ("Fréchet video distance", 3),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method's means, with the spread of the PSNR over clips and noises, how many runs they are of, and
    whether no other method saves as much at a higher PSNR. The largest kept and peak bytes."""

    method: str
    runs: int
    psnr_db: float
    psnr_spread_db: float
    time_ratio: float
    kept_nbytes: int
    peak_nbytes: int
    means: Mapping[str, float | None]
    best: bool = False

    @property
    def saved(self) -> float:
        """The share of MACs saved."""
        return float(self.means["macs_saved"] or 0.0)


def rows(figures: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One row a method, in the order of what they save."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for figure in figures:
        by_method.setdefault(str(figure["method"]), []).append(figure)
    uncached = by_method.get("off", [])
    made = [_row(method, of, uncached) for method, of in by_method.items()]
    ordered = sorted(made, key=lambda row: (row.saved, row.method))
    return [
        Row(**{**vars(row), "best": not any(_beats(other, row) for other in ordered)})
        for row in ordered
    ]


def _row(
    method: str, of: Sequence[Mapping[str, Any]], uncached: Sequence[Mapping[str, Any]]
) -> Row:
    likeness = [float(f["psnr_db"]) for f in of]
    means = {name: _mean([f.get(name) for f in of]) for name in (*_MEANS, *_OPTIONAL)}
    means["frechet"] = _frechet(of, uncached)
    return Row(
        method, len(of), fmean(likeness), pstdev(likeness), median(float(f["time_ratio"]) for f in of),
        max(int(f["kept_nbytes"]) for f in of), max(int(f.get("peak_nbytes", 0)) for f in of), means,
    )  # fmt: skip


def _frechet(
    of: Sequence[Mapping[str, Any]], uncached: Sequence[Mapping[str, Any]]
) -> float | None:
    """The Fréchet distance of a method's clips to the uncached ones, where their features are known."""
    found, reference = ([f.get("features") for f in figures] for figures in (of, uncached))
    if min(len(found), len(reference)) < 2 or None in found or None in reference:
        return None
    return frechet_distance(np.asarray(found), np.asarray(reference))


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return fmean(known) if known else None


def _beats(other: Row, row: Row) -> bool:
    return other.saved > row.saved + 1e-9 and other.psnr_db >= row.psnr_db


def at_saving(found: Iterable[Row], saving: float) -> float | None:
    """The PSNR of a curve of rows at a saving, between its settings; None outside of them."""
    points = sorted((row.saved, row.psnr_db) for row in found)
    for (low, below), (high, above) in itertools.pairwise(points):
        if low <= saving <= high:
            part = (saving - low) / (high - low) if high > low else 0.0
            return below + part * (above - below)
    return None


def markdown(found: Sequence[Row]) -> str:
    """The rows as a Markdown table; those that nothing beats are bold."""
    more = [name for name in _OPTIONAL if any(row.means.get(name) is not None for row in found)]
    lines = [
        "| method | MACs saved | PSNR to uncached, dB | to converged | SSIM | structure distance "
        "| colours | IoU | flicker | time | kept | peak |"
        + "".join(f" {_OPTIONAL[name][0]} |" for name in more),
        "|---|---|---|---|---|---|---|---|---|---|---|---|" + "---|" * len(more),
    ]
    for row in found:
        name = f"**`{row.method}`**" if row.best else f"`{row.method}`"
        means = row.means
        exact = row.psnr_db > 99
        likeness = "identical" if exact else f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"
        lines.append(
            f"| {name} | {100 * row.saved:.1f} % | {likeness} | {_told(means['converged_db'], 1)} "
            f"| {_told(means['ssim'], 3)} | {_told(means['structure_distance'], 4)} "
            f"| {_told(means['colours'], 3)} | {_told(means['iou'], 3)} | {_told(means['flicker'], 3)} "
            f"| {row.time_ratio:.2f} | {row.kept_nbytes / 2**20:.1f} MiB "
            f"| {row.peak_nbytes / 2**20:.0f} MiB |"
            + "".join(f" {_told(means[name], _OPTIONAL[name][1])} |" for name in more)
        )
    return "\n".join(lines)


def _told(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"

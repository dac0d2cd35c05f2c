"""Methods beside each other: what each saves, how near it stays, and by how much ours lead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hgc_video.evaluate.table import Row
from hgc_video.plan.presets import SEARCHED

from .measured import Told, measured_on

FEWER, _SOLVER = "fewer-steps:", "dpm++:"
_SAVINGS, _SLACK = (0.45, 0.60, 0.75, 0.85), 0.03
_OURS = "presets"


def table(found: Iterable[Row]) -> str:
    """The rows in few columns, ours in bold."""
    lines = [
        "| method | MACs saved | PSNR to `off`, dB | to converged, dB | colours | IoU | flicker | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        means = [row.means[key] for key in ("converged_db", "colours", "iou", "flicker")]
        cells = [
            "" if m is None else f"{m:.{d}f}" for m, d in zip(means, (1, 3, 3, 3), strict=True)
        ]
        lines.append(
            f"| {name_of(row.method)} | {100 * row.saved:.1f} % | {likeness(row)} | {' | '.join(cells)} "
            f"| {row.time_ratio:.2f} |"
        )
    return "\n".join(lines)


def likeness(row: Row) -> str:
    if row.psnr_db > 99:
        return "identical"
    return f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"


def name_of(method: str) -> str:
    if method in SEARCHED:
        return f"**`{method}`**"
    kind = Path(method.rpartition("=")[2]).stem.partition("-")[0]
    if _is_whole_step(method):
        told = {"ddim": "predictions held", "multistep": "predictions extrapolated"}
        return f"{told[kind]} at searched timesteps"
    if method.startswith("dpm++:order="):
        told = {"ddim": "DDIM", "multistep": "DPM++ 2M"}
        return f"{told[kind]} at searched timesteps"
    name, _, fields = method.partition(":")
    # Calibrations are puppet's own.
    shown = [f for f in fields.split(",") if f and not f.startswith("calibration=")]
    return f"`{':'.join([name, *([','.join(shown)] if shown else [])])}`"


def _is_whole_step(method: str) -> bool:
    """Our own search with whole steps alone, no reuse inside the network."""
    return method.startswith("searched:file=")


def is_solver(method: str) -> bool:
    return method.startswith((FEWER, _SOLVER))


def _is_published(method: str) -> bool:
    ours = method == "off" or method in SEARCHED
    ours = ours or method.startswith(("hgc", "lossless", "fitted"))
    return not (ours or is_solver(method) or _is_whole_step(method))


def margins(found: Sequence[Row]) -> str:
    """By how much the presets lie above the best of each kind at the same saving, interpolated between that
    kind's settings."""
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("the best published cache", _is_published), ("the best solver", is_solver),
        ("our own search with whole steps alone", _is_whole_step),
    )  # fmt: skip
    lines = []
    for preset in (row for row in found if row.method in ("balanced", "fast", "turbo")):
        told = []
        for name, belongs in kinds:
            told.append(f"{name}: {_gap(preset, [row for row in found if belongs(row.method)])}")
        lines.append(
            f"- `{preset.method}` ({100 * preset.saved:.1f} % saved) against {'; '.join(told)}"
        )
    return "\n".join(lines)


def _gap(preset: Row, rivals: Sequence[Row]) -> str:
    best = _at(rivals, preset.saved)
    if best is not None:
        return f"{preset.psnr_db - best:+.1f} dB"
    more = [row for row in rivals if row.saved >= preset.saved]
    if not more:
        return "none saves as much"
    least = min(more, key=lambda row: (round(row.saved, 3), -row.psnr_db))
    return f"{preset.psnr_db - least.psnr_db:+.1f} dB (at {100 * least.saved:.1f} %, its least)"


def _at(found: Sequence[Row], saved: float) -> float | None:
    """The best PSNR at a saving: of every pair of settings around it, on the line between them."""
    best: float | None = None
    for low in (row for row in found if row.saved <= saved):
        for high in (row for row in found if row.saved >= saved):
            span = high.saved - low.saved
            share = (saved - low.saved) / span if span else 0.0
            value = (1 - share) * low.psnr_db + share * high.psnr_db
            best = value if best is None else max(best, value)
    return best


def best_settings(found: Sequence[Row]) -> str:
    """Of every method the setting with the highest PSNR at each saving, give or take three points."""
    lines = [
        f"| method, at its best setting | {' | '.join(f'{100 * s:.0f} %' for s in _SAVINGS)} |",
        "|---" * (1 + len(_SAVINGS)) + "|",
    ]
    kinds = {_kind(row.method): None for row in found if row.saved > 0}
    for kind in sorted(kinds, key=lambda kind: (kind != _OURS, kind)):
        own = [row for row in found if row.saved > 0 and _kind(row.method) == kind]
        cells = [_best_cell(own, saving) for saving in _SAVINGS]
        if any(cells):
            name = f"**{kind}**" if kind == _OURS else kind
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _kind(method: str) -> str:
    """The method without its settings; solvers are one with their searched timesteps."""
    if method in SEARCHED:
        return _OURS
    if _is_whole_step(method) or method.startswith("dpm++:order=1"):
        return name_of(method)
    if method.startswith(_SOLVER):
        return "DPM++ 2M"
    return f"`{method.partition(':')[0]}`"


def _best_cell(own: Sequence[Row], saving: float) -> str:
    enough = [row for row in own if row.saved >= saving - _SLACK]
    if not enough:
        return ""
    best = max(enough, key=lambda row: row.psnr_db)
    flicker = best.means["flicker"]
    told = f"{best.psnr_db:.1f} dB"
    if best.saved > saving + _SLACK:
        told += f" ({100 * best.saved:.0f} %)"
    return told + (
        f", flicker {flicker:.2f}" if flicker is not None and round(flicker, 2) > 1.05 else ""
    )


def caption(several: Sequence[Told], found: Iterable[Row], steps: str = "") -> str:
    """What was run, how often, when and on what."""
    runs = sorted({row.runs for row in found})
    many = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
    first = several[0]
    clips, seeds = first["header"]["clips"], first["header"]["seeds"]
    return (
        f"{clips} clips of {first['num_frames']} frames, {seeds} noise{'s' * (seeds > 1)}{steps}, "
        f"{first['header']['model']}; means over {many} runs a row, with the spread of the PSNR; "
        f"{measured_on(*several)}."
    )

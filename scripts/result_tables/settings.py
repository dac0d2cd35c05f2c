"""Presets and `guard` at other numbers of steps and schedulers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hgc_video.evaluate.table import Row, rows

from .measured import Told, means_over
from .methods import is_solver, likeness, name_of

_NEAR = 0.1  # how much the savings of a row and of the baseline beside it may differ
_SCHEDULERS = {
    "DPMSolverMultistepScheduler": "DPM++ 2M", "EulerAncestralDiscreteScheduler": "Euler ancestral",
    "LCMScheduler": "LCM",
}  # fmt: skip


def settings_table(several: Iterable[Told]) -> str:
    """The rows of several comparisons, each with the better of its equal-cost baselines beside it."""
    lines = [
        "| steps, scheduler | method | MACs saved | PSNR to `off`, dB | fewer steps: saved, dB | flicker |",
        "|---|---|---|---|---|---|",
    ]
    for told in several:
        found = rows(told["figures"])
        plain = [row for row in found if is_solver(row.method)]
        for row in found:
            if row.method != "off" and row not in plain:
                lines.append(
                    f"| {_setting(told)} | {name_of(row.method)} | {100 * row.saved:.1f} % "
                    f"| {likeness(row)} | {_nearest(plain, row)} | {row.means['flicker']:.2f} |"
                )
    return "\n".join(lines)


def _setting(told: Told) -> str:
    scheduler = told["scheduler"]
    return ", ".join(
        [str(told["num_inference_steps"]), *([_SCHEDULERS[scheduler]] if scheduler else [])]
    )


def _nearest(plain: Iterable[Row], row: Row) -> str:
    """The baseline that saves most nearly as much, the better of two that do."""
    near = min(plain, key=lambda p: (round(abs(p.saved - row.saved), 3), -p.psnr_db), default=None)
    if near is None or abs(near.saved - row.saved) > _NEAR:
        return ""
    return f"{100 * near.saved:.0f} %, {near.psnr_db:.1f}"


def asked_table(told: Told) -> str:
    """What was asked of `guard` and what came out, and the fixed presets, by setting: means over clips."""
    lines = [
        "| scheduler, steps | method | asked, dB | PSNR to `off`, dB | MACs saved | flicker |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in told["figures"]:
        groups.setdefault((row["setting"], row["method"]), []).append(row)
    for (setting, method), group in groups.items():
        saved, psnr, change = (
            sum(row[name] for row in group) / len(group)
            for name in ("macs_saved", "psnr_db", "flicker")
        )
        asked = group[0]["asked_db"]
        name, _, steps = setting.rpartition("-")
        lines.append(
            f"| {name}, {steps} | {name_of(method)} | {'' if asked is None else f'{asked:g}'} | "
            f"{'identical' if psnr > 99 else f'{psnr:.1f}'} | {100 * saved:.1f} % | {change:.2f} |"
        )
    return "\n".join(lines) + f"\n\n{means_over(told)}"

#!/usr/bin/env python
"""Rewrites the tables of README.md and configs/results/README.md, and README's sentence of margins, from the
figures in configs/results that `hgc-video compare --json` measured. Run it after each measurement."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hgc_video.evaluate.table import Row, rows
from hgc_video.files import write_text
from hgc_video.plan.presets import SEARCHED

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "configs" / "results"
_FEWER, _SOLVER = "fewer-steps:", "dpm++:"
_NEAR = 0.1  # how much the savings of a row and of the baseline beside it may differ
_README_ROWS = (
    "off", "quality", "balanced", "fast", "turbo", "deepcache:interval=2,controlnet_interval=2",
    "l2p:calibration=configs/puppet-calibration.yaml,interval=3", "dpm++:steps=10",
)  # fmt: skip


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
            f"| {_name(row.method)} | {100 * row.saved:.1f} % | {_likeness(row)} | {' | '.join(cells)} "
            f"| {row.time_ratio:.2f} |"
        )
    return "\n".join(lines)


def _likeness(row: Row) -> str:
    if row.psnr_db > 99:
        return "identical"
    return f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"


def _name(method: str) -> str:
    if method in SEARCHED:
        return f"**`{method}`**"
    kind = Path(method.rpartition("=")[2]).stem.partition("-")[0]
    if _is_whole_step(method):
        told = {"ddim": "predictions held", "multistep": "predictions extrapolated"}
        return f"{told[kind]} at searched timesteps"
    if method.startswith("dpm++:order="):
        told = {"ddim": "DDIM", "multistep": "DPM++ 2M"}
        return f"{told[kind]} at searched timesteps"
    if method.startswith(("l2p:", "fitted:")):  # whose calibration is puppet's own
        fields = [
            f for f in method.partition(":")[2].split(",") if not f.startswith("calibration=")
        ]
        return f"`{':'.join([method.partition(':')[0], *([','.join(fields)] if fields else [])])}`"
    if method.startswith("block-caching:"):
        return f"`block-caching:threshold={method.rpartition('=')[2]}`"
    return f"`{method}`"


def _is_whole_step(method: str) -> bool:
    """Our own search with whole steps alone, no reuse inside the network."""
    return method.startswith("searched:file=")


def _is_solver(method: str) -> bool:
    return method.startswith((_FEWER, _SOLVER))


def _is_published(method: str) -> bool:
    ours = method == "off" or method in SEARCHED
    ours = ours or method.startswith(("hgc", "lossless", "fitted"))
    return not (ours or _is_solver(method) or _is_whole_step(method))


def margins(found: Sequence[Row]) -> str:
    """By how much the presets lie above the best of each kind at the same saving, interpolated between that
    kind's settings."""
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("the best published cache", _is_published), ("the best solver", _is_solver),
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


def settings_table(several: Iterable[dict[str, Any]]) -> str:
    """The rows of several comparisons, each with the better of its equal-cost baselines beside it."""
    lines = [
        "| steps, scheduler | method | MACs saved | PSNR to `off`, dB | fewer steps: saved, dB | flicker |",
        "|---|---|---|---|---|---|",
    ]
    for told in several:
        found = rows(told["figures"])
        plain = [row for row in found if _is_solver(row.method)]
        for row in found:
            if row.method != "off" and row not in plain:
                lines.append(
                    f"| {told['setting']} | {_name(row.method)} | {100 * row.saved:.1f} % "
                    f"| {_likeness(row)} | {_nearest(plain, row)} | {row.means['flicker']:.2f} |"
                )
    return "\n".join(lines)


def _nearest(plain: Iterable[Row], row: Row) -> str:
    """The baseline that saves most nearly as much, the better of two that do."""
    near = min(plain, key=lambda p: (round(abs(p.saved - row.saved), 3), -p.psnr_db), default=None)
    if near is None or abs(near.saved - row.saved) > _NEAR:
        return ""
    return f"{100 * near.saved:.0f} %, {near.psnr_db:.1f}"


def asked_table(measured: Sequence[dict[str, Any]]) -> str:
    """What was asked of `guard` and what came out, and the fixed presets, by setting: means over clips."""
    lines = [
        "| scheduler, steps | method | asked, dB | PSNR to `off`, dB | MACs saved | flicker |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in measured:
        groups.setdefault((row["setting"], row["method"]), []).append(row)
    for (setting, method), group in groups.items():
        saved, psnr, change = (
            sum(row[name] for row in group) / len(group)
            for name in ("macs_saved", "psnr_db", "flicker")
        )
        asked = group[0]["asked_db"]
        name, _, steps = setting.rpartition("-")
        lines.append(
            f"| {name}, {steps} | {_name(method)} | {'' if asked is None else f'{asked:g}'} | "
            f"{'identical' if psnr > 99 else f'{psnr:.1f}'} | {100 * saved:.1f} % | {change:.2f} |"
        )
    return "\n".join(lines)


def caption(measured: dict[str, Any], found: Iterable[Row]) -> str:
    """What was run, how often, when and on what."""
    runs = sorted({row.runs for row in found})
    many = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
    return (
        f"{measured['task']}; means over {many} runs a row, with the spread of the PSNR; "
        f"{measured['date']}, {measured['machine']}."
    )


def sections(results: Path) -> dict[str, str]:
    """What stands between the marks of each name, made from the files in `results`."""
    main, older, newer, settings = (
        json.loads((results / f"{name}.json").read_text())
        for name in ("compare-25", "rivals-25", "rivals-2026", "other-settings")
    )
    known = {figure["method"] for figure in main["figures"]}
    more = [*older["figures"], *newer["figures"]]
    figures = [*main["figures"], *(f for f in more if f["method"] not in known)]
    found = rows(figures)
    main["date"] = " and ".join(sorted({main["date"], newer["date"]}))
    few = [row for name in _README_ROWS for row in found if row.method == name]
    others = [row for told in settings for row in rows(told["figures"])]
    guard = json.loads((results / "guard.json").read_text())
    measured = f"{guard['task']}; {guard['date']}, {guard['machine']}."
    return {
        "presets": f"{table(few)}\n\n{caption(main, few)}",
        "margins": margins(found),
        "all methods": f"{table(found)}\n\n{caption(main, found)}",
        "other settings": f"{settings_table(settings)}\n\n{caption(settings[0], others)}",
        "asked quality": f"{asked_table(guard['figures'])}\n\n{measured}",
    }


def rewritten(text: str, made: dict[str, str]) -> str:
    """A page with what stands between its marks made anew; a name may stand in it or not."""
    for name, body in made.items():
        begin, end = f"<!-- {name}: scripts/results_table.py -->", f"<!-- end of {name} -->"
        if begin in text:
            before, rest = text.split(begin)
            _, after = rest.split(end)
            text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def main() -> None:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    pages = [ROOT / "README.md", RESULTS / "README.md"]
    parser.add_argument("--pages", type=Path, nargs="+", default=pages, help="pages to rewrite")
    args = parser.parse_args()
    made = sections(args.results)
    for page in args.pages:
        write_text(page, rewritten(page.read_text(), made))


if __name__ == "__main__":
    main()

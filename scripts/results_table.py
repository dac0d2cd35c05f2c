#!/usr/bin/env python
"""Writes README's results from what `hgc-video compare --json` measured, between their marks: one table of
one setting, or with --settings one of several."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hgc_video.atomic import write_text
from hgc_video.compare.table import Row, rows
from hgc_video.plan.presets import SEARCHED

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"
_CONTROLS, _NEAR = ("fewer-steps:", "dpm++:"), 0.1
OTHERS = "<!-- other settings: scripts/results_table.py -->", "<!-- end of other settings -->"


def table(found: Iterable[Row]) -> str:
    """The rows in few columns, ours in bold."""
    lines = [
        "| method | MACs saved | PSNR to `off`, dB | to converged, dB | colours | IoU | flicker | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        name = _name(row.method)
        likeness = (
            "identical" if row.psnr_db > 99 else f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"
        )
        means = [row.means[key] for key in ("converged_db", "colours", "iou", "flicker")]
        told = ["" if m is None else f"{m:.{d}f}" for m, d in zip(means, (1, 3, 3, 3), strict=True)]
        lines.append(
            f"| {name} | {100 * row.saved:.1f} % | {likeness} | {' | '.join(told)} | {row.time_ratio:.2f} |"
        )
    return "\n".join(lines)


def _name(method: str) -> str:
    if method in SEARCHED:
        return f"**`{method}`**"
    kind = Path(method.rpartition("=")[2]).stem.partition("-")[0]
    if method.startswith("searched:file="):
        words = {"ddim": "predictions held", "multistep": "predictions extrapolated"}
        return f"{words[kind]} at searched timesteps"
    if method.startswith("dpm++:order="):
        words = {"ddim": "DDIM", "multistep": "DPM++ 2M"}
        return f"{words[kind]} at searched timesteps"
    if method.startswith("block-caching:"):
        return f"`block-caching:threshold={method.rpartition('=')[2]}`"
    return f"`{method}`"


def settings_table(several: Iterable[dict[str, Any]]) -> str:
    """The rows of several comparisons, each with the better of its equal-cost controls beside it."""
    lines = [
        "| steps, scheduler | method | MACs saved | PSNR to `off`, dB | fewer steps: saved, dB | flicker |",
        "|---|---|---|---|---|---|",
    ]
    for told in several:
        found = rows(told["figures"])
        plain = [row for row in found if row.method.startswith(_CONTROLS)]
        for row in found:
            if row.method != "off" and row not in plain:
                psnr = f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"
                lines.append(
                    f"| {told['setting']} | {_name(row.method)} | {100 * row.saved:.1f} % "
                    f"| {'identical' if row.psnr_db > 99 else psnr} | {_nearest(plain, row)} "
                    f"| {row.means['flicker']:.2f} |"
                )
    return "\n".join(lines)


def _nearest(plain: Iterable[Row], row: Row) -> str:
    """The control that saves most nearly as much, the better of two that do."""
    near = min(plain, key=lambda p: (round(abs(p.saved - row.saved), 3), -p.psnr_db), default=None)
    if near is None or abs(near.saved - row.saved) > _NEAR:
        return ""
    return f"{100 * near.saved:.0f} %, {near.psnr_db:.1f}"


def caption(told: dict[str, Any], found: Iterable[Row], date: str) -> str:
    """What was run, how often, when and on what."""
    runs = sorted({row.runs for row in found})
    many = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
    return (
        f"{told['task']}; means over {many} runs a row, with the spread of the PSNR; "
        f"{told.get('date', date)}, {told.get('machine', 'two shared CPU cores')}."
    )


def main() -> None:
    """Reads the figures and rewrites README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, nargs="+", help="the first one tells the caption")
    parser.add_argument("--settings", action="store_true", help="a table of several settings")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    several = [json.loads(path.read_text()) for path in args.figures]
    date = datetime.fromtimestamp(args.figures[0].stat().st_mtime, UTC).date().isoformat()
    if args.settings:
        several = [
            told for part in several for told in (part if isinstance(part, list) else [part])
        ]
        found = [row for told in several for row in rows(told["figures"])]
        _put(args.readme, OTHERS, settings_table(several), caption(several[0], found, date))
        return
    told, *others = several
    figures = list(told["figures"])
    for other in others:
        known = {figure["method"] for figure in figures}
        figures += [figure for figure in other["figures"] if figure["method"] not in known]
    _put(args.readme, (BEGIN, END), table(rows(figures)), caption(told, rows(figures), date))


def _put(readme: Path, marks: tuple[str, str], made: str, told: str) -> None:
    begin, end = marks
    before, rest = readme.read_text().split(begin)
    _, after = rest.split(end)
    write_text(readme, f"{before}{begin}\n{made}\n\n{told}\n{end}{after}")


if __name__ == "__main__":
    main()

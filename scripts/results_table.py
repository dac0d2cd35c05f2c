#!/usr/bin/env python
"""Writes README's results from what `hgc-video compare --json` measured, between the two marks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from hgc_video.atomic import write_text
from hgc_video.compare.table import Row, rows
from hgc_video.plan.presets import SEARCHED

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"


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


def main() -> None:
    """Reads the figures and rewrites README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, nargs="+", help="the first one tells the caption")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    several = [json.loads(path.read_text()) for path in args.figures]
    told, *others = several
    figures = list(told["figures"])
    for other in others:
        known = {figure["method"] for figure in figures}
        figures += [figure for figure in other["figures"] if figure["method"] not in known]
    text = args.readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    found = rows(figures)
    today = datetime.fromtimestamp(args.figures[0].stat().st_mtime, UTC).date().isoformat()
    date = told.get("date", today)
    runs = sorted({row.runs for row in found})
    caption = (
        f"{told['task']}; means over {runs[0]}"
        f"{f' to {runs[-1]}' if len(runs) > 1 else ''} runs a row, with the spread of the PSNR; {date}, "
        f"{told.get('machine', 'two shared CPU cores')}."
    )
    made = f"{before}{BEGIN}\n{table(found)}\n\n{caption}\n{END}{after}"
    write_text(args.readme, made)


if __name__ == "__main__":
    main()

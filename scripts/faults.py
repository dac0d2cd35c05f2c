#!/usr/bin/env python
"""Cuts commands off at every boundary of their files, goes on, and asks whether anything was lost.

A boundary is a call that creates, writes, renames, removes or syncs a file or folder of the command's own.
At each one a fresh copy of the command is killed (-9), once more with half of the write made, stopped by
Ctrl-C, told that the disk is full or read-only from there on, or that a write or sync failed, or its folder
vanishes; `moment` kills it at random moments, `point` at points inside checkpoint, queue, store and encoder
that have names (file_faults/points.py). Then nothing half-written may lie under a final name, the same
command must give what an unbroken run gives, to the byte, and nothing that was kept may be made again.
Calls are intercepted in the C library (preload.c), so that PyAV's, SQLite's and safetensors' count too.

    python scripts/faults.py                           all, up to 40 boundaries of each case and fault
    python scripts/faults.py --case extract --fault kill torn --most 1000

The cases named `part: ...` are what writes files, without the models: milliseconds each, so that every
boundary can be tried. The others are whole commands.
Rows are kept as they come, and a stopped campaign goes on. Linux and a C compiler are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN = ROOT / "scripts" / "file_faults" / "begin"  # what every process of a command runs first
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.results_file import ResultsFile  # noqa: E402
from hgc_video.evaluate.results_header import results_header, write_results  # noqa: E402
from scripts.file_faults import shim  # noqa: E402
from scripts.file_faults.campaign import (  # noqa: E402
    FAULTS,
    preload_libraries,
    run_case,
)
from scripts.file_faults.cases import CASES  # noqa: E402


def work(args: argparse.Namespace) -> None:
    """The process that the library is preloaded in: makes the rows."""
    if any(CASES[name].whole for name in args.case):
        preload_libraries()
    place = args.place
    results = ResultsFile(args.rows)
    task = f"faults {args.seed}"
    known = {
        (row["case"], row["fault"], row["number"]) for row in results.read(task) if "fault" in row
    }
    for name in args.case:
        for row in run_case(name, args.fault, args.most, args.seed, place, known):
            results.add(task, [row])
            if row.get("verdict", "pass") != "pass" or "boundaries" in row:
                print(json.dumps(row), file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By case its boundaries; by fault how many were tried, verdicts, minutes, and what is no pass."""
    found: dict[str, Any] = {}
    for row in rows:
        case = found.setdefault(row["case"], {"faults": {}})
        if "boundaries" in row:
            case |= {"boundaries": row["boundaries"], "calls": row["calls"]}
            continue
        told = case["faults"].setdefault(
            row["fault"], {"tried": 0, "verdicts": {}, "left": 0, "minutes": 0.0, "not passed": []}
        )
        told["tried"] += 1
        told["verdicts"] = dict(Counter(told["verdicts"]) + Counter([row["verdict"]]))
        told["left"] += row["left"]
        told["minutes"] = round(told["minutes"] + row["seconds"] / 60, 2)
        if row["verdict"] != "pass":
            told["not passed"].append(
                {k: row[k] for k in ("number", "call", "path", "verdict", "why")}
            )
    return found


def markdown(found: dict[str, Any]) -> str:
    """The table: a row for each case, and of each fault how many passed of how many."""
    used = [fault for fault in FAULTS if any(fault in case["faults"] for case in found.values())]
    lines = [
        f"| command | boundaries | {' | '.join(used)} | minutes |",
        "|---" * (3 + len(used)) + "|",
    ]
    for name, case in found.items():
        told = [case["faults"].get(fault) for fault in used]
        passed = [
            f"{one['verdicts'].get('pass', 0)} of {one['tried']}" if one else "" for one in told
        ]
        minutes = sum(one["minutes"] for one in told if one)
        lines.append(
            f"| {name} | {case.get('boundaries', '')} | {' | '.join(passed)} | {minutes:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the options, has the rows made, and writes the table; exit code 1 where one is no pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--fault", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--most", type=int, default=40, help="boundaries of each case and fault")
    parser.add_argument(
        "--seed", type=int, default=0, help="of which boundaries, where there are more"
    )
    parser.add_argument("--rows", type=Path, default=Path("runs/faults.jsonl"), help="rows so far")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.place is not None:
        work(args)
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        library = shim.build(Path(place))
        own = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{BEGIN}:{ROOT}"}
        given = [*sys.argv[1:], "--place", place]
        command = [sys.executable, str(Path(__file__).resolve()), *given]
        subprocess.run(command, env={**os.environ, **own}, check=True)
    rows = ResultsFile(args.rows).read(f"faults {args.seed}")
    chosen = [
        r for r in rows if r["case"] in args.case and r.get("fault", args.fault[0]) in args.fault
    ]
    found = table(chosen)
    print(markdown(found))
    if args.out is not None:
        write_results(args.out, results_header(None), parts=found)
    verdicts = Counter(row["verdict"] for row in chosen if "verdict" in row)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    if set(verdicts) - {"pass"}:
        sys.exit("not all of them passed")


if __name__ == "__main__":
    main()

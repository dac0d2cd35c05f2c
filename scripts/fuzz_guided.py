#!/usr/bin/env python
"""Looks for input that leads our parsers down new paths, by coverage, and counts how each input ends.

Atheris (libFuzzer) changes good texts byte by byte, in words, and in the values that they hold, and keeps
every change that reaches lines of this package that none before it reached. Right is a result, or an error of
ours in one line. Each parser runs in a process of its own; one that hangs, crashes or takes too much memory
is begun again, and counts as a defect.

    pip install atheris                        3.0; no part of the extras
    python scripts/fuzz_guided.py                               all parsers, an hour together
    python scripts/fuzz_guided.py --parser "shot files" --minutes 5
    python scripts/fuzz_guided.py --parser policies --again FILE      one input, with its error in full

What reached new lines is kept in --folder, and a later campaign begins from it. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.results_header import results_header, write_results  # noqa: E402
from scripts.bad_input.parsers import PARSERS  # noqa: E402

_FOLLOW = ROOT / "scripts" / "bad_input" / "follow.py"
_DONE = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")


def campaign(name: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Follows one parser in processes of their own until the time is over, and sums up what they told."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    verdicts, defects, lines, kept = Counter[str](), [], 0, 0
    while (left := begun + seconds - time.monotonic()) > 5:
        (folder / "verdicts.json").unlink(missing_ok=True)
        known = set(folder.glob("stopped-*"))
        ended = subprocess.run(
            [sys.executable, _FOLLOW, name, folder, str(left), str(seed)],
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        (folder / "log").write_text(ended.stderr)
        if not (folder / "verdicts.json").exists():
            sys.exit(f"{name}: the parser was not begun:\n{ended.stderr[-2000:]}")
        told, found = json.loads((folder / "verdicts.json").read_text())
        verdicts.update(told)
        defects += found
        reached = _DONE.findall(ended.stderr)
        lines, kept = map(int, reached[-1]) if reached else (lines, kept)
        for file in sorted(set(folder.glob("stopped-*")) - known):
            verdicts["stopped"] += 1
            defects.append(
                {"verdict": "stopped", "why": file.name.split("-")[1], "input": file.name}
            )
        seed += 1
    return {
        "inputs": verdicts.total(),
        "verdicts": dict(sorted(verdicts.items())),
        "branches reached": lines,
        "inputs kept": kept,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "defects": defects,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| parser | tried | right result | refused in one line | defects | branches reached | minutes |",
        "|---" * 7 + "|",
    ]
    for name, one in found.items():
        right, refused = (one["verdicts"].get(verdict, 0) for verdict in ("right", "refused"))
        lines.append(
            f"| {name} | {one['inputs']} | {right} | {refused} | {one['inputs'] - right - refused} | "
            f"{one['branches reached']} | {one['minutes']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the options, follows the parsers, writes the table; exit code 1 where there are defects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parser", nargs="*", default=[*PARSERS], choices=[*PARSERS])
    parser.add_argument("--minutes", type=float, default=60.0, help="all parsers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/fuzz-guided"), help="inputs that are kept"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file of the table; parsers that it has stay in it"
    )
    parser.add_argument(
        "--again", type=Path, help="one input of the parser, with its error in full"
    )
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.again:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            PARSERS[args.parser[0]].read(args.again.read_bytes(), Path(place))
        return
    found = json.loads(args.out.read_text())["parsers"] if args.out and args.out.exists() else {}
    for name in args.parser:
        folder = args.folder.absolute() / name.replace(" ", "-")
        found[name] = campaign(name, folder, 60 * args.minutes / len(args.parser), args.seed)
        if args.out is not None:
            write_results(args.out, results_header(None), parsers=found)
    print(markdown(found))
    if any(one["defects"] for one in found.values()):
        sys.exit("there are defects")


if __name__ == "__main__":
    main()

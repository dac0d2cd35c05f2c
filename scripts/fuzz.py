#!/usr/bin/env python
"""Gives damaged and hostile input to everything that reads files or texts, and counts how that ends.

Good input of each kind (clips of every container that the tests write, images, sound, configurations of
finished clips, shot files, lists of jobs, schedules, calibrations, policies, queues, models in single files,
command lines) is damaged in bytes, in words, or in the values that it holds, and read in a process of its
own under limits of time and memory. What is right is a result, or an error of ours in one line; anything
else (another error, a crash, a hang, memory without end, a wrong result) is a defect. `bombs` are small files
that claim to hold much: they must be refused.

    python scripts/fuzz.py                             13,000 inputs
    python scripts/fuzz.py --subject movies --inputs 5000 --seed 1
    python scripts/fuzz.py --again movies:217          one input, with its error in full

The same seed gives the same inputs. Rows are kept as they come, and a stopped campaign goes on. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.results_file import ResultsFile  # noqa: E402
from hgc_video.evaluate.results_header import results_header, write_results  # noqa: E402
from scripts.bad_input.bombs import BOMBS, good_bombs  # noqa: E402
from scripts.bad_input.forks import Verdict, tried  # noqa: E402
from scripts.bad_input.subjects import SUBJECTS  # noqa: E402

_BOMBS = "bombs"


def inputs(
    name: str, count: int, seed: int, goods: list[Path], known: set[int]
) -> Iterator[tuple[int, str, Path]]:
    """Number, kind of damage and file of each input that is not known yet; a file lasts until the next."""
    for number in range(count):
        if number in known:
            continue
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            random_ = random.Random(f"{seed} {name} {number}")
            how, path = SUBJECTS[name].damage(random_.choice(goods), Path(folder), random_)
            yield number, how, path


def campaign(
    name: str, count: int, seed: int, place: Path, rows: ResultsFile, until: float
) -> None:
    """Tries the inputs of a subject, and keeps a row of each."""
    task = f"fuzz {seed}"
    known = {row["number"] for row in rows.read(task) if row["subject"] == name}
    if name == _BOMBS:
        for number, (path, _) in enumerate(good_bombs(place)):
            if number not in known:
                _keep(
                    rows,
                    task,
                    name,
                    number,
                    path.name,
                    tried(partial(BOMBS[path.name].check, path)),
                )
        return
    place.mkdir()
    goods = SUBJECTS[name].good(place)
    _try_goods(name, goods)
    for number, how, path in inputs(name, count, seed, goods, known):
        if time.monotonic() > until:
            return
        _keep(rows, task, name, number, how, tried(partial(SUBJECTS[name].check, path)))


def _try_goods(name: str, goods: list[Path]) -> None:
    """Ends the campaign where good input is refused: damaged input would be for that alone."""
    subject = SUBJECTS[name]
    for path in goods if subject.reads_good else ():
        verdict = tried(partial(subject.check, path))
        if verdict.name != "right":
            sys.exit(f"{name}: {path.name} is good, and is {verdict.name}: {verdict.why}")


def _keep(rows: ResultsFile, task: str, name: str, number: int, how: str, verdict: Verdict) -> None:
    row = {
        "subject": name,
        "number": number,
        "how": how,
        "verdict": verdict.name,
        "seconds": verdict.seconds,
    }
    if verdict.is_defect:
        row["why"] = verdict.why
        print(json.dumps(row), file=sys.stderr, flush=True)
    rows.add(task, [row])


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By subject: inputs, verdicts, minutes, and the kinds of defects."""
    found: dict[str, Any] = {}
    for row in rows:
        one = found.setdefault(
            row["subject"], {"inputs": 0, "verdicts": {}, "minutes": 0.0, "defects": []}
        )
        one["inputs"] += 1
        one["verdicts"][row["verdict"]] = one["verdicts"].get(row["verdict"], 0) + 1
        one["minutes"] += row["seconds"] / 60
        if "why" in row:
            one["defects"].append({k: row[k] for k in ("number", "how", "verdict", "why")})
    return {name: {**one, "minutes": round(one["minutes"], 2)} for name, one in found.items()}


def markdown(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| input | tried | right result | refused in one line | defects | minutes |",
        "|---" * 6 + "|",
    ]
    for name, one in found.items():
        right, refused = (one["verdicts"].get(verdict, 0) for verdict in ("right", "refused"))
        bad = one["inputs"] - right - refused
        lines.append(
            f"| {name} | {one['inputs']} | {right} | {refused} | {bad} | {one['minutes']:.1f} |"
        )
    return "\n".join(lines)


def again(named: str, count: int, seed: int) -> None:
    """One input in this process, with its error in full; the file stays in the present folder."""
    name, _, number = named.partition(":")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        subject = SUBJECTS[name]
        goods = subject.good(Path(place))
        known = set(range(int(number)))
        tries = inputs(name, int(number) + 1, seed, goods, known)  # has the file while it is alive
        _, how, path = next(tries)
        print(how, path, file=sys.stderr)
        if path.is_file():
            shutil.copy(path, Path(tempfile.gettempdir()) / f"fuzz-{path.name}")
        subject.check(path)


def main() -> None:
    """Reads the options, tries the inputs, writes the table; exit code 1 where there are defects."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--subject", nargs="*", default=[_BOMBS, *SUBJECTS], choices=[_BOMBS, *SUBJECTS]
    )
    parser.add_argument(
        "--inputs", type=int, default=13_000, help="all subjects together, each by its share"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="no more are begun after so long"
    )
    parser.add_argument("--rows", type=Path, default=Path("runs/fuzz.jsonl"), help="rows so far")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    parser.add_argument("--again", help="SUBJECT:NUMBER, one input with its error in full")
    args = parser.parse_args()
    args.rows = args.rows.absolute()  # commands are tried in a folder of their own
    args.out = args.out and args.out.absolute()
    if args.again:
        again(args.again, args.inputs, args.seed)
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    shares = {name: SUBJECTS[name].share if name in SUBJECTS else 0 for name in args.subject}
    rows, until = ResultsFile(args.rows), time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="fuzz-good-") as place:
        for name in args.subject:
            count = round(args.inputs * shares[name] / (sum(shares.values()) or 1))
            campaign(name, count, args.seed, Path(place) / name, rows, until)
    chosen = [row for row in rows.read(f"fuzz {args.seed}") if row["subject"] in args.subject]
    found = table(chosen)
    print(markdown(found))
    if args.out is not None:
        write_results(args.out, results_header(None), seed=args.seed, subjects=found)
    verdicts = Counter(row["verdict"] for row in chosen)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    if any("why" in row for row in chosen):
        sys.exit("there are defects")


if __name__ == "__main__":
    main()

"""What lies in a command's folder: whether it is half written, and what must be the same again."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgc_video.jobs.checkpoint.durable import fault_of

# Of reports and figures: what another run takes more or less of, and where this one began.
_MEASURED = re.compile(
    r"seconds|time_ratio|peak_nbytes|resumed_at|heartbeat|uniform|origin", re.IGNORECASE
)

# What only a run itself reads: work folders here and at a URL, and logs.
_OF_A_RUN = re.compile(r"work/|storage/|/logs/")


def states(folder: Path) -> dict[str, str]:
    """By name a checksum of every result there is, leaving out what is measured; of a folder of frames, its
    frames together."""
    found = {}
    made = folder / "made"
    for path in sorted(made.rglob("*")):
        name = str(path.relative_to(made))
        if _is_aside(path, folder) or path.is_dir() or _OF_A_RUN.search(name):
            continue
        if path.suffix == ".png":
            continue
        if (told := _result(path)) is not None:
            found[name] = hashlib.sha256(told).hexdigest()
    for pictures in {path.parent for path in made.rglob("*.png") if not _is_aside(path, folder)}:
        whole = b"".join(
            path.name.encode() + path.read_bytes() for path in sorted(pictures.iterdir())
        )
        found[f"{pictures.relative_to(made)}/"] = hashlib.sha256(whole).hexdigest()
    return found


def _is_aside(path: Path, folder: Path) -> bool:
    """Whether a name is one that nobody reads: hidden, or in a hidden folder."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _result(path: Path) -> bytes | None:
    if path.suffix in (".mp4", ".gif", ".webp"):
        return path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_lasting(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".yaml":
        return json.dumps(_lasting(yaml.safe_load(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        lines = [json.dumps(_lasting(one), sort_keys=True) for one in whole_lines(path)]
        return "\n".join(sorted(set(lines))).encode()
    if path.suffix == ".html":
        return b"" if path.read_text().rstrip().endswith("</html>") else b"torn"
    if path.name == "queue.sqlite" and _has_jobs(path):
        jobs = rows(path, "SELECT id, name, key, state, digest FROM jobs ORDER BY id")
        return json.dumps(jobs).encode()
    return None


def _lasting(told: Any) -> Any:
    if isinstance(told, dict):
        return {
            key: _lasting(value) for key, value in told.items() if not _MEASURED.search(str(key))
        }
    return [_lasting(one) for one in told] if isinstance(told, list) else told


def whole_lines(path: Path) -> list[Any]:
    """The lines of a file of results that were written whole."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def rows(path: Path, query: str) -> list[list[Any]]:
    """Rows of a database, of a copy: to open one is to change it."""
    with tempfile.TemporaryDirectory() as aside:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, aside)
        table = sqlite3.connect(Path(aside) / path.name)
        try:
            return [list(row) for row in table.execute(query)]
        finally:
            table.close()


def half_written(folder: Path, allowed: list[dict[str, str]]) -> list[str]:
    """What lies under a final name and is not whole. Results are whole where they are those of one of the
    `allowed` states."""
    faults = list(_unreadable(folder))
    if faults:
        return faults
    for name, told in states(folder).items():
        if name.endswith((".mp4", ".png", ".yaml", "/", ".html")) and all(
            told != state.get(name) for state in allowed
        ):
            faults.append(f"{name} is neither the older nor the newer one")
    return faults


def _unreadable(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if _is_aside(path, folder) or path.is_dir():
            continue
        try:
            _read(path)
        except Exception as error:
            yield f"{path.relative_to(folder)}: {type(error).__name__}: {error}"
    for work in folder.rglob("work"):
        checkpoints = sorted(work.glob("checkpoint-*"))
        # What is being removed is older than a whole one, which is read first.
        if checkpoints and all(fault_of(one) is not None for one in checkpoints):
            yield f"no checkpoint of {work.name} is whole"
    for entry in folder.glob("home/extracted/[!.]*/entry.json"):
        starts = json.loads(entry.read_text())["starts"]
        missing = [start for start in starts if not (entry.parent / f"{start:06d}.npz").is_file()]
        if missing:
            yield f"kept extraction {entry.parent.name} lacks chunks {missing}"


def _read(path: Path) -> None:
    if path.suffix in (".json", ".yaml", ".html"):
        if _result(path) == b"torn":
            raise ValueError("it ends before its end")
    elif path.name.endswith(".json.gz"):
        json.loads(gzip.decompress(path.read_bytes()))
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            for name in arrays.files:
                _ = arrays[name]
    elif path.name == "queue.sqlite" and path.stat().st_size:
        ((told,),) = rows(path, "PRAGMA integrity_check")
        if told != "ok":
            raise ValueError(told)


def litter(folder: Path) -> list[str]:
    """Files that were being written, and that nobody will complete."""
    return [str(p.relative_to(folder)) for p in sorted(folder.rglob(".*")) if ".part" in p.name]


def left_work(folder: Path) -> list[str]:
    """What runs of a batch have left to be resumed, where all jobs are done."""
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("made/batch/work/*"))]


def progress(folder: Path) -> dict[str, int]:
    """How far work that is kept has come: the newest whole checkpoint, results measured, jobs done."""
    found = {}
    for work in (*folder.glob("made/work"), *folder.glob("made/storage/job")):
        whole = [p for p in work.glob("checkpoint-*") if fault_of(p) is None]
        found["checkpoint"] = max((int(p.name[-6:]) for p in whole), default=0)
        found["finished"] = int((work / "done.json").is_file())
    for path in folder.glob("made/**/*.jsonl"):
        found[path.name] = len(whole_lines(path))
    for path in folder.glob("made/batch/queue.sqlite"):
        if _has_jobs(path):
            found["jobs done"] = len(rows(path, "SELECT 1 FROM jobs WHERE state = 'done'"))
    return found


def _has_jobs(path: Path) -> bool:
    return bool(rows(path, "SELECT 1 FROM sqlite_master WHERE name = 'jobs'"))


def lost(folder: Path, before: dict[str, int]) -> list[str]:
    """What was there when a command was cut off, and was made again by the one after it."""
    faults = []
    report = folder / "made/report.json"
    # The report of a run that was cut off when it had made everything is that run's own.
    if before.get("checkpoint") and not before["finished"] and report.is_file():
        resumed = json.loads(report.read_text())["resumed_at"]
        if resumed < before["checkpoint"]:
            faults.append(f"resumed at step {resumed}, {before['checkpoint']} were kept")
    for path in folder.glob("made/**/*.jsonl"):
        lines = [json.dumps(_lasting(one), sort_keys=True) for one in whole_lines(path)]
        if len(lines) > len(set(lines)):
            faults.append(f"{path.name} has a result twice")
    for path in folder.glob("made/batch/queue.sqlite"):
        twice = rows(
            path, "SELECT job FROM history WHERE state = 'done' GROUP BY job HAVING count(*) > 1"
        )
        if twice:
            faults.append(f"jobs {twice} were made twice")
    return faults

#!/usr/bin/env python
"""Makes again everything that depends on the shipped weights: calibration, schedules, results, pictures,
notebooks' outputs, and the tables of the pages. configs/reproduce.yaml says what and how.

A part is made where its commands or the files that it reads are not those of the last time, or its own are
gone. A run that is stopped goes on: parts that are made are kept in configs/reproduced.json, and the rows of
those that are not in runs/reproduce.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from doit.cmd_base import ModuleTaskLoader
from doit.dependency import FileChangedChecker, JsonDB
from doit.doit_cmd import DoitMain
from doit.tools import config_changed

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.results_header import results_header  # noqa: E402
from hgc_video.files import kept_sha256_of, write_text  # noqa: E402

WEIGHTS = "hgc_video/puppet/weights/**/*"
RECORD = "configs/reproduced.json"
# What a tree of its own holds for --small: what is read, and what is written.
_COPIED = (
    "configs",
    "examples",
    "README.md",
    "hgc_video/puppet/README.md",
    "hgc_video/plan/policies/README.md",
)
_LINKED = ("scripts", "hgc_video/models", "hgc_video/measure", "hgc_video/cache", "hgc_video/enable.py",
           "hgc_video/puppet/weights", "hgc_video/puppet/depth_estimator")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One entry of configs/reproduce.yaml, or one of its `each`: `kind` is the entry's name, `reads` and
    `makes` are patterns relative to the root."""

    name: str
    kind: str
    what: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    run: tuple[str, ...]
    minutes: float


def read_parts(path: Path, small: bool) -> list[Part]:
    """All parts, as the file has them; commands with what --small adds."""
    return [part for entry in yaml.safe_load(path.read_text()) for part in _parts(entry, small)]


def _parts(entry: dict[str, Any], small: bool) -> Iterator[Part]:
    for name, options in entry.get("each", {None: ""}).items():
        commands = []
        for command in entry["run"]:
            told = command.replace("{name}", str(name)).replace("{options}", options)
            commands.append(f"{told} {entry.get('small', '')}".strip() if small else told)
        yield Part(
            name=entry["name"] if name is None else f"{entry['name']}-{name}", kind=entry["name"],
            what=entry["what"], needs=tuple(entry.get("needs", ())),
            reads=tuple(pattern.replace("{name}", str(name)) for pattern in entry.get("reads", ())),
            makes=tuple(pattern.replace("{name}", str(name)) for pattern in entry["makes"]),
            run=tuple(commands), minutes=float(entry["minutes"]),
        )  # fmt: skip


class Sha256Checker(FileChangedChecker):
    """Files by what is in them: a checkout has other times of change."""

    def check_modified(self, file_path: str, file_stat: Any, state: str) -> bool:
        return bool(kept_sha256_of(Path(file_path)) != state)

    def get_state(self, dep: str, current_state: str | None) -> str:
        return str(kept_sha256_of(Path(dep)))


class KeptAtOnce(JsonDB):  # type: ignore[misc]  # doit has no types
    """doit's record of what was made, written after each part: a run that is killed loses none."""

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        if dependency != "result:":  # which are the values again
            super().set(task_id, dependency, value)
        if dependency == "deps:":  # the last that doit sets of a task
            self.dump()

    def dump(self) -> None:
        write_text(self.name, json.dumps(self._db, indent=1, sort_keys=True) + "\n")


class Graph:
    """The parts as tasks of doit, in a tree: the checkout, or a copy of what they read and write."""

    def __init__(self, parts: list[Part], tree: Path) -> None:
        self.parts, self.tree = parts, tree
        self._of_kind: dict[str, list[Part]] = {}
        for part in parts:
            self._of_kind.setdefault(part.kind, []).append(part)

    def named(self, name: str) -> list[str]:
        """The parts of a name: one, or all of an entry. SystemExit names those there are."""
        found = [part.name for part in self.parts if name in (part.name, part.kind)]
        if not found:
            known = ", ".join(dict.fromkeys(part.kind for part in self.parts))
            raise SystemExit(f'no part is called "{name}"; there are {known}, and those of --list')
        return found

    def tasks(self) -> Iterator[dict[str, Any]]:
        """What doit is given: a part depends on what the parts that it needs have made."""
        for part in self.parts:
            needed = [
                one for kind in part.needs if kind != "weights" for one in self._of_kind[kind]
            ]
            yield {
                "basename": part.name, "doc": part.what, "actions": [(self._make, [part])],
                "task_dep": [one.name for one in needed], "file_dep": self._read_by(part),
                "uptodate": [config_changed({"run": part.run}), (self._inputs_are_those, [needed])],
                "targets": [name for name in part.makes if "*" not in name], "verbosity": 2,
            }  # fmt: skip

    def _read_by(self, part: Part) -> list[str]:
        patterns = (*part.reads, *([WEIGHTS] if "weights" in part.needs else []))
        found = [path for pattern in patterns for path in sorted(self.tree.glob(pattern))]
        return [str(path.relative_to(self.tree)) for path in found if path.is_file()]

    def _inputs_are_those(self, task: Any, values: dict[str, Any], needed: list[Part]) -> bool:
        """Whether what the needed parts made is what this one read the last time."""
        return bool(values.get("inputs") == self._checksum(needed))

    def _checksum(self, needed: list[Part]) -> str:
        found = hashlib.sha256()
        for path in sorted({p for one in needed for m in one.makes for p in self.tree.glob(m)}):
            found.update(f"{path.relative_to(self.tree)}\0{kept_sha256_of(path)}\n".encode())
        return found.hexdigest()[:16]

    def _make(self, part: Part) -> dict[str, Any] | bool:
        """Runs a part's commands; what is kept of it beside what doit keeps."""
        began = time.monotonic()
        for command in part.run:
            print(f"\n== {part.name}: {command}", flush=True)
            if subprocess.run(_words(command), cwd=self.tree, env=_environment()).returncode:
                return False
        needed = [one for kind in part.needs if kind != "weights" for one in self._of_kind[kind]]
        header = results_header("puppet")
        return {
            "minutes": round((time.monotonic() - began) / 60, 2), "inputs": self._checksum(needed),
            **{name: header[name] for name in ("date", "commit", "machine", "model_hash")},
        }  # fmt: skip


def _words(command: str) -> list[str]:
    """The command with this very Python, whatever the PATH holds."""
    program, *arguments = shlex.split(command)
    if program == "hgc-video":
        return [sys.executable, "-c", "from hgc_video.cli import main; main()", *arguments]
    script, *rest = arguments
    return [sys.executable, str(ROOT / script), *rest]


def _environment() -> dict[str, str]:
    """One thread a process, and this checkout's package."""
    found = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(ROOT), *([found] if found else [])])
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": paths,
    }


def small_tree(folder: Path) -> Path:
    """A tree to try the parts in, made once: a copy of what they write, links to what they read."""
    if not (folder / "configs").is_dir():
        for name in _COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        (folder / RECORD).unlink(missing_ok=True)
        for name in _LINKED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(ROOT / name)
        for path in sorted((ROOT / "hgc_video" / "plan").rglob("*.py")):
            copied = folder / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
    return folder


def listed(graph: Graph, record: dict[str, Any]) -> str:
    """The parts with the minutes that they took, or may take, and when they were made."""
    lines, total = [], 0.0
    for part in graph.parts:
        values = record.get(part.name, {}).get("_values_:", {})
        minutes = values.get("minutes", part.minutes)
        total += minutes
        when = f"{values['date']} at {values['commit']}" if values else "(estimate)"
        lines.append(f"{part.name:28} {minutes:7.1f} min  {when:26} {part.what}")
    return "\n".join([*lines, f"{'all':28} {total:7.1f} min"])


def main() -> int:
    """Lists the parts, or makes those that are due; 0 where all went well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--list", action="store_true", help="tell the parts and the minutes they took"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="this part and those that it needs",
    )
    parser.add_argument(
        "--alone", action="store_true", help="with --only: without those that it needs"
    )
    parser.add_argument(
        "--again", action="store_true", help="make what is asked for though it is up to date"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, in a tree of its own")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "reproduce-small", help="the tree of --small"
    )
    args = parser.parse_args()
    tree = small_tree(args.folder.absolute()) if args.small else ROOT
    graph = Graph(read_parts(ROOT / "configs" / "reproduce.yaml", args.small), tree)
    if args.list:
        kept = tree / RECORD
        print(listed(graph, json.loads(kept.read_text()) if kept.is_file() else {}))
        return 0
    chosen = [name for asked in args.only for name in graph.named(asked)]
    os.chdir(tree)
    config = {"dep_file": RECORD, "backend": "kept", "check_file_uptodate": Sha256Checker}
    loader = ModuleTaskLoader({"task_parts": graph.tasks, "DOIT_CONFIG": config})
    doit = DoitMain(loader, extra_config={"BACKEND": {"kept": f"{__name__}:KeptAtOnce"}})
    options = ["--continue", *(["--single"] * args.alone), *(["--always-execute"] * args.again)]
    return int(doit.run(["run", *options, *chosen]))


if __name__ == "__main__":
    sys.exit(main())

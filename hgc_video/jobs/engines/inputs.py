"""The files that a task reads, carried to another machine: as bytes, and there as files again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import complete_or_gone, make_folder
from ...plain_data import HALVES
from ..shot import map_inputs


@dataclass(frozen=True)
class Carried:
    """A file, or a folder's files, by name; `path` is where it lies on the machine that sends it."""

    path: str
    is_folder: bool
    files: Mapping[str, bytes]
    digest: str


def read_carried(path: Path) -> Carried:
    """Reads a file or a folder of files."""
    files = {p.name: p.read_bytes() for p in files_of(path)}
    told = hashlib.sha256()
    for name, data in files.items():
        told.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode(errors=HALVES))
    return Carried(str(path), path.is_dir(), files, told.hexdigest())


def files_of(path: Path) -> list[Path]:
    """The file, or the folder's files, by name."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def input_paths(options: Mapping[str, Any]) -> list[str]:
    """The files and folders that a task reads, of options with absolute paths."""
    found: list[str] = []

    def note(name: str, value: Any) -> Any:
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).exists():
            found.append(value)
        return value

    map_inputs(options, note)
    return list(dict.fromkeys(found))


def with_files_here(
    options: Mapping[str, Any], folder: Path, carried: Callable[[str], Carried | None]
) -> dict[str, Any]:
    """The options with paths of this machine: as they are where the same file lies there, as in a shared
    folder, else to a copy in `folder`.

    Args:
        carried: what came of a path; None where nothing did.

    Raises:
        InputError: a copy cannot be written.
    """

    def place(name: str, value: Any) -> Any:
        came = carried(value) if isinstance(value, str) else None
        if came is None or _is_here(came):
            return value
        return str(_written(came, folder))

    return map_inputs(options, place)


def renamed(
    names: Mapping[str, str], options: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, str]:
    """The names of files by path, with the paths of copies: `here` are the options after
    `with_files_here`."""
    before, after = _inputs(options), _inputs(here)
    moved = dict(zip(before, after, strict=True))
    return {moved.get(path, path): name for path, name in names.items()}


def _inputs(options: Mapping[str, Any]) -> list[str]:
    """Every text that may name an input, in an order that options with other paths have too."""
    found: list[str] = []

    def note(name: str, value: Any) -> Any:
        found.append(str(value))
        return value

    map_inputs(options, note)
    return found


def _is_here(came: Carried) -> bool:
    """Whether the same file lies at the same place on this machine."""
    path = Path(came.path)
    there = path.is_dir() if came.is_folder else path.is_file()
    return there and read_carried(path).digest == came.digest


def _written(came: Carried, folder: Path) -> Path:
    """A copy of what came, made once for each content and whole where it is there."""
    kind = "folder" if came.is_folder else "file"
    target = folder / f"{kind}-{came.digest[:16]}" / Path(came.path).name
    if not target.exists():
        make_folder(target.parent)
        with complete_or_gone(target) as part:
            if came.is_folder:
                part.mkdir()
            for inner, data in came.files.items():
                (part / inner if came.is_folder else part).write_bytes(data)
    return target

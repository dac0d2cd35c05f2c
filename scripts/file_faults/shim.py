"""Builds preload.c, and the page by which a command's processes are told where the fault is."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

NONE, KILL, TORN, FAIL_ONCE, FAIL_EVER, INTERRUPT, VANISH = range(7)
_LONGS = struct.Struct("5q")
_TEXT_NBYTES = 1024
_NBYTES = _LONGS.size + 2 * _TEXT_NBYTES
PAGE_VARIABLE = "FILE_FAULTS_PAGE"


def build(folder: Path) -> Path:
    """The compiled library; CalledProcessError where there is no C compiler that makes it."""
    library = folder / "preload.so"
    source = Path(__file__).with_name("preload.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Boundary:
    """One call that changed a file: its number, process, name, paths (the second one of a rename), and the
    bytes that were to be written."""

    number: int
    pid: int
    call: str
    path: str
    other: str
    nbytes: int


class Page:
    """The mapped page; `log` is the file that every boundary is written to."""

    def __init__(self, path: Path, folder: Path) -> None:
        path.write_bytes(bytes(_NBYTES))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _NBYTES)
        self.path, self.log = path, path.with_suffix(".log")
        for at, text in enumerate((str(folder), str(self.log))):
            start = _LONGS.size + at * _TEXT_NBYTES
            self._map[start : start + _TEXT_NBYTES] = os.fsencode(text).ljust(_TEXT_NBYTES, b"\0")
        self._folder = os.fsencode(str(folder)).ljust(_TEXT_NBYTES, b"\0")

    def arm(self, fault: int, at: int = 0, error: int = 0) -> None:
        """Counts boundaries from now on, the one numbered `at` (from 1) with the fault."""
        self.log.unlink(missing_ok=True)
        self._map[: _LONGS.size] = _LONGS.pack(0, at, fault, error, 0)
        self._map[_LONGS.size : _LONGS.size + _TEXT_NBYTES] = self._folder

    def disarm(self) -> list[Boundary]:
        """Counts no more; the boundaries there were."""
        self._map[_LONGS.size : _LONGS.size + _TEXT_NBYTES] = bytes(_TEXT_NBYTES)
        if not self.log.is_file():
            return []
        rows = [line.split("\t") for line in self.log.read_text(errors="replace").splitlines()]
        return sorted(
            (Boundary(int(n), int(pid), call, path, other, int(size))
             for n, pid, call, path, other, size in rows),
            key=lambda one: one.number,
        )  # fmt: skip

    @property
    def fired(self) -> bool:
        """Whether the fault was met."""
        return bool(_LONGS.unpack(self._map[: _LONGS.size])[4])

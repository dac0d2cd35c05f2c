"""The folder of an unfinished run at a place that all machines reach: a shared folder, or an fsspec URL."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ...errors import HGCVideoError, InputError, text_of, warn
from ...files import make_folder, resolved

EVERY_S = 2.0


@contextmanager
def work_at(place: str, every_s: float = EVERY_S) -> Iterator[Path]:
    """A local folder for a run's work: `place`, or where that is empty one for this run alone.

    Of a URL it begins with what lies there, and what the run writes is copied there as it goes and when it
    ends; what is marked as complete last arrives last. Where it cannot be copied, the run goes on and what
    lies there stays; warns of it at the end.

    Raises:
        InputError: what lies at the URL cannot be read.
    """
    if place and "://" not in place:
        make_folder(Path(place))
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="hgc-video-") as folder:
        if not place:
            yield Path(folder)
            return
        copied = _fetched(place, Path(folder))
        ended = threading.Event()
        thread = threading.Thread(target=_keep_copying, args=(copied, ended, every_s), daemon=True)
        thread.start()
        try:
            yield Path(folder)
        finally:
            ended.set()
            thread.join()
            _push_at_the_end(copied, place)


def remove_work(place: str) -> None:
    """Removes what a finished run left; warns where that cannot be done."""
    if "://" not in place:
        shutil.rmtree(place, ignore_errors=True)
        return
    import fsspec

    try:
        files, path = fsspec.url_to_fs(place)
        if files.exists(path):
            files.rm(path, recursive=True)
    except Exception as error:  # of whatever file system
        warn(_told("what a finished run left cannot be removed from", place, error), stacklevel=2)


def names_at(place: str) -> list[str]:
    """The names of the folders of runs at a place; none where it is not there, or cannot be read."""
    with suppress(Exception):  # of whatever file system
        if "://" not in place:
            return [path.name for path in Path(place).iterdir()]
        import fsspec

        files, path = fsspec.url_to_fs(place)
        return [inner.rstrip("/").rpartition("/")[2] for inner in files.ls(path, detail=False)]
    return []


def _fetched(place: str, folder: Path) -> _Copied:
    """The folder, with what lies at the URL."""
    try:
        copied = _Copied(place, folder)
        copied.fetch()
    except HGCVideoError:
        raise
    except Exception as error:  # of whatever file system
        raise InputError(
            _told("what resumes this run cannot be read from", place, error)
        ) from error
    return copied


def _keep_copying(copied: _Copied, ended: threading.Event, every_s: float) -> None:
    while not ended.wait(every_s):
        with suppress(Exception):  # of whatever file system; the next time it may be there again
            copied.push()


def _push_at_the_end(copied: _Copied, place: str) -> None:
    try:
        copied.push()
    except Exception as error:
        warn(_told("what resumes this run cannot be copied to", place, error), stacklevel=3)


def _told(what: str, place: str, error: Exception) -> str:
    """A fault in a line, without names and passwords in its URLs: it is kept in the queue and in logs."""
    told = f"{what} {place}: {type(error).__name__}: {text_of(error)[:300]}"
    return re.sub(r"://[^/\s@]*@", "://", told)


class _Copied:
    """A local folder and its copy at a URL."""

    def __init__(self, url: str, folder: Path) -> None:
        import fsspec

        self._files, self._place = fsspec.url_to_fs(url)
        self._folder = folder
        self._pushed: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Copies what lies at the URL here."""
        if not self._files.exists(self._place):
            return
        for path in self._files.find(self._place):
            inner = path[len(self._place) :].lstrip("/")
            if _is_part(PurePosixPath(inner)):
                continue  # of a machine that was lost while it copied
            target = self._folder / inner
            if not resolved(target).is_relative_to(resolved(self._folder)):
                raise InputError(f'"{inner}" leads out of the folder of the run; remove it there')
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(path, str(target))
            self._pushed[inner] = _state(target)

    def push(self) -> None:
        """Copies files that are new or changed there, the oldest first, and removes those that are gone."""
        here = [(self._look(path), path) for path in self._folder.rglob("*")]
        there = {inner for (_, inner, _), _ in here if inner}
        for (_, inner, state), path in sorted(here, key=lambda one: one[0][0]):
            if inner and self._pushed.get(inner) != state and self._copy(path, inner):
                self._pushed[inner] = state
        for inner in set(self._pushed) - there:
            with suppress(FileNotFoundError):  # somebody else has removed it
                self._files.rm(f"{self._place}/{inner}")
            del self._pushed[inner]
            folder = inner.rpartition("/")[0]
            if folder and not (self._folder / folder).exists() and not self._holds(folder):
                with suppress(OSError):  # where folders are not more than names, there is none
                    self._files.rmdir(f"{self._place}/{folder}")

    def _holds(self, folder: str) -> bool:
        """Whether a file was copied to a folder that is gone here, and is to be removed there."""
        return any(inner.startswith(f"{folder}/") for inner in self._pushed)

    def _copy(self, path: Path, inner: str) -> bool:
        """Whether a file was copied; not where the run has removed it meanwhile."""
        target = f"{self._place}/{inner}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self._put(path, target)
        except FileNotFoundError:
            return False
        return True

    def _put(self, path: Path, target: str) -> None:
        """Copies a file so that it is there as a whole or not at all, and what was there before stays until
        then: a machine may be lost at any moment. Object stores, which have no move of their own, take a
        file as a whole anyway."""
        from fsspec import AbstractFileSystem

        if type(self._files).mv is AbstractFileSystem.mv:
            self._files.put_file(str(path), target)
            return
        folder, _, name = target.rpartition("/")
        part = f"{folder}/.{name}.part"
        try:
            self._files.put_file(str(path), part)
            self._move(part, target)
        except BaseException:
            with suppress(Exception):  # the first error is the one to raise
                self._files.rm_file(part)
            raise

    def _move(self, part: str, target: str) -> None:
        """Gives a file its name; some file systems refuse that, or leave it, where the name is taken."""
        try:
            self._files.mv(part, target)
        except Exception:
            if not self._files.exists(target):
                raise
        if self._files.exists(part):
            self._files.rm_file(target)
            self._files.mv(part, target)

    def _look(self, path: Path) -> tuple[int, str, Any]:
        """When a file was written, its name and state; no name where it is none, is gone, or is not yet
        complete."""
        inner = path.relative_to(self._folder)
        try:
            if not path.is_file() or _is_part(inner):
                return 0, "", None
            state = _state(path)
        except FileNotFoundError:
            return 0, "", None
        return state[0], str(inner), state


def _is_part(inner: PurePath) -> bool:
    """Whether a file is not yet complete, or lies in a folder that is not."""
    return any(part.endswith(".part") for part in inner.parts)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size

"""Files that appear complete or not at all.

What is written goes to a name beside the target and is moved there when it is complete, so an error, a
full disk or a cancelled run leaves nothing behind and an older file, or folder, of that name untouched.
Knows nothing about what they hold.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import HGCVideoError, InputError
from .paths import user_path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def complete_or_gone(target: Path, kind: type[HGCVideoError] = InputError) -> Iterator[Path]:
    """A path to write a file or folder to, which takes the target's place at the end of the block.

    Raises:
        `kind`: the place cannot be written, the disk is full.
    """
    part = _part_of(target)
    try:
        yield part
        _replace(part, target)
    except OSError as error:
        raise unwritable(target, error, kind) from error
    finally:
        _remove(part)


def require_writable(target: Path, kind: type[HGCVideoError] = InputError) -> None:
    """Raises `kind` when nothing could be written beside the target."""
    part = _part_of(target)
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise unwritable(target, error, kind) from error
    finally:
        _remove(part)


def unwritable(target: Path, error: OSError, kind: type[HGCVideoError]) -> HGCVideoError:
    """What to tell the user of a system's error."""
    if error.errno in _FULL:
        return kind(f'the disk is full: cannot write "{target}"; free space or go elsewhere')
    reason = os.strerror(error.errno) if error.errno else str(error)
    return kind(f'cannot write "{target}": {reason.lower()}; choose a folder you may write')


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file and returns its path; an older file stays whole until the new one is.

    Raises:
        InputError: a folder that is missing or cannot be written, a full disk.
    """
    target = user_path(path)
    with complete_or_gone(target) as part:
        part.write_text(text, encoding="utf-8")
    return target


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises InputError when no file could be written to `path`: ask before a long run."""
    target = user_path(path)
    try:
        if not target.parent.is_dir():
            raise InputError(f'no folder "{target.parent}" for "{target.name}"; create it first')
        if target.is_dir():
            raise InputError(f'"{target}" is a folder; name a file')
    except OSError as error:
        raise unwritable(target, error, InputError) from error
    require_writable(target)


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def _replace(part: Path, target: Path) -> None:
    if (
        part.is_dir() and target.is_dir()
    ):  # a folder that holds something cannot be replaced at once
        old = _part_of(target)
        target.rename(old)
        try:
            part.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old)
    else:
        part.replace(target)


def _remove(part: Path) -> None:
    try:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    except OSError:  # its folder cannot be reached, so nothing was made there
        return

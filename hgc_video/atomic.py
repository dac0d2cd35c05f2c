"""Files that appear complete or not at all.

What is written goes to a name beside the target and is moved there at the end. Knows nothing about
what the files hold.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from .errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file and returns its path; an older file stays whole until the new one is.

    Raises:
        InputError: a folder that is missing or cannot be written, a full disk.
    """
    target = Path(path).expanduser()
    part = _part_of(target)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        _remove(part)
    return target


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises InputError when no file could be written to `path`: ask before a long run."""
    target = Path(path).expanduser()
    part = _part_of(target)
    try:
        if not target.parent.is_dir():
            raise InputError(f'no folder "{target.parent}" for "{target.name}"; create it first')
        if target.is_dir():
            raise InputError(f'"{target}" is a folder; name a file')
        part.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        _remove(part)


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # its folder cannot be reached, so nothing was made there
        return


def _unwritable(target: Path, error: OSError) -> InputError:
    if error.errno in _FULL:
        return InputError(f'the disk is full: cannot write "{target}"; free space or go elsewhere')
    reason = os.strerror(error.errno) if error.errno else str(error)
    return InputError(f'cannot write "{target}": {reason.lower()}; choose a folder you may write')

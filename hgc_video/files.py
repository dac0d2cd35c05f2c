"""Files: paths as users give them, files that appear complete or not at all, and data that the package ships.

What is written goes to a name beside the target and is moved there when it is complete, so an error, a
full disk or a cancelled run leaves nothing behind and an older file, or folder, of that name untouched.
Knows nothing about what files hold.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import HGCVideoError, InputError

_PACKAGE = Path(__file__).parent


def package_data(kind: str) -> Path:
    """The folder of data that the package ships: schedules, models; in configs/ of a checkout, in the package
    itself where it was installed from a wheel."""
    installed = _PACKAGE / "configs" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / "configs" / kind


def shipped_schedule(name: str, model: str = "") -> Path:
    """The file of a preset's schedule: the one for a model that is known by this name where there is such
    a file, else the one that was searched on the embedded model."""
    folder = package_data("schedules")
    own = folder / model / f"{name}.yaml"
    known = (
        model == Path(model).name and own.is_file()
    )  # a path of the user's names no file of ours
    return own if known else folder / f"{name}.yaml"


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~` put in full; a name such as `~draft.mp4`, which is nobody's home, is kept as a
    shell keeps it."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path's own raises where there is no such user


def ffmpeg_name(path: Path) -> str:
    """The name of a local file for ffmpeg's libraries, which take what precedes a colon in a relative
    name ("12:30.mp4") for a protocol."""
    return str(path.absolute())


def check_distinct(outputs: Mapping[str, Any], inputs: Iterable[tuple[str, Any]]) -> None:
    """InputError where an output is the file of an input or of another output, which it would overwrite.

    `outputs` are paths by option (None: not asked for), `inputs` what they may not be, each with its name
    in the message; an input that is no path (an array, a list of images) is no file.
    """
    taken = [(name, given) for name, given in inputs if isinstance(given, str | os.PathLike)]
    for option, given in outputs.items():
        if given is None:
            continue
        for name, other in taken:
            if _same_file(user_path(given), user_path(other)):
                raise InputError(f'{option} "{given}" is the {name} itself; name another file')
        taken.append((f"file of {option}", given))


def _same_file(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    try:  # hard links, and names that differ in case alone where that makes no difference
        return one.samefile(other)
    except OSError:
        return False


def own_folder(given_folder: str | os.PathLike[str] | None = None) -> Path:
    """Where the package keeps what it measures: the folder given, or $HGC_VIDEO_HOME, or `hgc_video` in
    $XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    if given_folder is not None:
        return user_path(given_folder)
    if own := os.environ.get("HGC_VIDEO_HOME"):
        return user_path(own)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard has relative paths ignored.
    return (caches if caches.is_absolute() else user_path("~/.cache")) / "hgc_video"


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

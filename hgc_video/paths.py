"""Paths as a user gives them, and the package's own folder; knows nothing about what lies there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError


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


def own_folder(told: str | os.PathLike[str] | None = None) -> Path:
    """Where the package keeps what it measures: as told, or $HGC_VIDEO_HOME, or `hgc_video` in
    $XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    if told is not None:
        return user_path(told)
    if own := os.environ.get("HGC_VIDEO_HOME"):
        return user_path(own)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard has relative paths ignored.
    return (caches if caches.is_absolute() else user_path("~/.cache")) / "hgc_video"

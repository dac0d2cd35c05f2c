"""A configuration becomes a run: of a shot file, of a job in a queue, of what a finished clip carries.

Everything in this room that makes a clip goes through `run_configuration`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shot import check_options, read_shot

if TYPE_CHECKING:
    from ..clip import Clip
    from ..generator import Generator

StepCallback = Callable[[int, int, Any], "bool | None"]


def run_configuration(
    options: Mapping[str, Any],
    where: str = "configuration",
    *,
    progress: bool = True,
    callback: StepCallback | None = None,
    generator: Generator | None = None,
) -> Clip:
    """Makes the clip of a mapping of options, whose paths are absolute or relative to where we are.

    Args:
        options: options of `generate` by name; what is left out has its default.
        where: where the options stand, as messages begin.
        generator: makes the clip, and keeps its model for the next one.

    Raises:
        InputError: an unknown option, or what `generate` refuses.
    """
    check_options(options, where)
    from ..generator import Generator  # loads numpy and more, which wrong options need not wait for

    made: Clip = (generator or Generator()).generate(
        **options, progress=progress, callback=callback
    )
    return made


def run_shot(
    path: str | os.PathLike[str],
    *,
    allow_outside: bool = False,
    progress: bool = True,
    callback: StepCallback | None = None,
    **options: Any,
) -> Clip:
    """Makes the clip of a shot file.

    Args:
        path: a YAML or JSON file of options of `generate`, as `hgc-video init` writes one; paths in it are
            relative to it.
        allow_outside: paths in the file may lead out of its folder.
        callback: called after each step, as that of `generate`; returning False stops the run.
        options: options of `generate` that take the place of the file's, as preset="fast"; their paths are
            relative to where we are.

    Returns:
        A Clip, also written to `out` where the file or an option names one.

    Raises:
        InputError: the file cannot be read, an option is unknown or not possible, a path in the file leads
            out of its folder.
    """
    shot = read_shot(path, allow_outside=allow_outside).with_options(options)
    return run_configuration(
        shot.options, str(Path(path)), progress=progress, callback=callback
    )  # fmt: skip

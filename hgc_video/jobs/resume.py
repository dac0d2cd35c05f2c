"""resume(): goes on with a run from its work folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..clip import Clip
from ..errors import StateError
from ..files import user_path
from ..pipeline import generate
from .checkpoint.description import Description
from .checkpoint.work_folder import WorkFolder

StepCallback = Callable[[int, int, Any], "bool | None"]


def resume(
    work: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callback: StepCallback | None = None,
) -> Clip:
    """Goes on with the run that `generate(..., work=...)` began in a folder, from its newest checkpoint; the
    clip is the same to the bit as that of a run that was not interrupted, on the same kind of device.

    Args:
        work: the folder of the run. One that is done gives its clip, and nothing is made again.
        out: write the clip here; None is where the run was to write it.
        progress, callback: as of `generate`; of the steps that are left.

    Raises:
        StateError: no run was begun there; or its model, an input, or a version changed (it is named).
        Cancelled: the callback returned False.
    """
    folder = WorkFolder(user_path(work))
    told = folder.read("job")
    if told is None:
        raise StateError(f'no run was begun in "{work}"; name the work folder of one')
    given = Description.from_dict(told).given(folder.path)
    if out is not None:
        given["out"] = out
    clip: Clip = generate(**given, work=folder.path, progress=progress, callback=callback)
    return clip

"""The work of one call of `generate`: begins, goes on or is done already; kept in its folder meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import Cancelled, HGCVideoError, InputError, StateError, warn
from ...files import as_argument, user_path
from ...options import GenerateOptions
from ...report import Report
from .description import Description, keep_inputs
from .interrupt import finishing_the_step
from .keeper import FolderKeeper, how_to_go_on
from .work_folder import WorkFolder


class Work:
    """What is kept of a run. `keeper` is what the run offers its state to; None where nothing is kept."""

    def __init__(self, options: GenerateOptions) -> None:
        self._options = options
        self._out = None if options.out is None else user_path(options.out)
        self._description: Description | None = None
        self.folder: WorkFolder | None = None
        self._is_new = False  # nothing of the run was kept before
        self.keeper: FolderKeeper | None = None
        place = _place(options)
        if place is None:
            return
        self._folder = WorkFolder(place)
        begun = self._folder.read("job")
        told = begun.get("asked") if isinstance(begun, dict) else None
        self._asked = options.work is not None if told is None else bool(told)
        at_once = begun is not None or self._asked
        self.keeper = FolderKeeper(self._begin, options.checkpoint_every_s, at_once=at_once)

    def _begin(self) -> WorkFolder:
        """The folder, with what is made noted in it; StateError where something else is made there."""
        folder = self._folder
        now = Description.of(self._options)
        told = folder.read("job")
        changes = [] if told is None else Description.from_dict(told).changes_to(now)
        if changes:
            raise StateError(
                f'work "{folder.path}" is of another run: {"; ".join(changes)}; go on with that one by '
                f"hgc-video resume {as_argument(folder.path)}, name another folder, or remove it"
            )
        folder.open()
        self._is_new = told is None
        if told is None:
            keep_inputs(self._options, folder.path)
            folder.write("job", {**now.to_dict(), "asked": self._asked})
        self._description, self.folder = now, folder
        return folder

    def finished(self) -> Report | None:
        """The report of the clip, where it was made before and lies there as it was written."""
        if self.folder is None or self._description is None:
            return None
        if not self.folder.is_finished(self._out, self._description.digest):
            return None
        told = self.folder.read("report")
        return None if told is None else Report.from_json(json.dumps(told))

    @property
    def write_s(self) -> float:
        """Seconds that the run waited for its checkpoints."""
        return 0.0 if self.keeper is None else self.keeper.write_s

    def finish(self, report: Report) -> None:
        """The clip is made and written. A folder that nobody asked for is removed; warns where nothing can
        be noted in one that was asked for, as it was moved, or its disk is full."""
        if self.keeper is not None and self.keeper.folder is not None:
            self.keeper.wait()
            self.folder = self.keeper.folder
        if self.folder is None or self._description is None:
            return
        if not self._asked:
            self.folder.remove()
            return
        try:
            self.folder.write("report", json.loads(report.to_json()))
            self.folder.finish(self._out, self._description.digest)
        except StateError:  # the clip is gone
            raise
        except InputError as error:
            warn(f"the clip is made; asked for again it is made anew: {error}", stacklevel=3)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Has the run stop as `finishing_the_step` says while the block lasts, and say how to go on. A run
        that is refused before anything of it was kept leaves no folder."""
        if self.keeper is None:
            yield
            return
        try:
            with finishing_the_step(self.keeper):
                yield
        except KeyboardInterrupt:
            if self.keeper.folder is None:
                raise
            self.keeper.writer.abandon()
            told = f"stopped at once; {how_to_go_on(self.keeper.folder.path)}"
            raise Cancelled(told) from None
        except Cancelled:
            raise
        except HGCVideoError:
            if self._is_new and self.keeper.folder is not None:
                self.keeper.wait()
                self.keeper.folder.remove_where_nothing_is_kept()
            raise
        finally:
            if self.keeper.folder is not None:
                self.keeper.wait()
                self.keeper.folder.close()


def begun_seed(work: str | os.PathLike[str] | None) -> int | None:
    """The seed of the run that was begun in a folder; None where there is none. StateError where job.json is
    damaged."""
    told: Any = None if work is None else WorkFolder(user_path(work)).read("job")
    if told is None:
        return None
    seed = Description.from_dict(told).options.get("seed")
    if not isinstance(seed, int):
        raise StateError("job.json lacks the seed; begin the run anew")
    return seed


def _place(options: GenerateOptions) -> Path | None:
    """The work folder: as told, or beside the clip that is written; none where several devices make it."""
    if options.work is not None:
        return user_path(options.work)
    if options.out is None or options.devices > 1:
        return None
    out = user_path(options.out)
    return out.with_name(f"{out.name}.work")

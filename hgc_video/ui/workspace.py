"""What one `hgc-video ui` holds: uploads, the line of runs, estimates, and the batch folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import make_folder, require_writable
from .batch_folder import BatchFolder
from .comparison import MOST
from .estimate import Estimates, Scene, scene_of
from .line import Line, Task
from .making import Maker
from .request import checked, options_from
from .uploads import Uploads


class Workspace:
    """Everything that requests share. `shared` says that others in the network reach the page."""

    def __init__(
        self, folder: Path, *, most_nbytes: int, model: str = "puppet", shared: bool = False,
        batch: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.shared = folder, shared
        make_folder(folder / "uploads")
        require_writable(folder / "uploads" / "any")
        self.uploads = Uploads(folder / "uploads", most_nbytes)
        self.estimates = Estimates()
        self.maker = Maker(self.estimates, model)
        self.line = Line(self.maker, self.maker.prepare)
        self.batch = None if batch is None else BatchFolder(batch)

    def options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `generate` of the values of a form."""
        return options_from(values, self.uploads, shared=self.shared)

    def scene(self, values: Mapping[str, Any]) -> Scene:
        """What a run of a form's values would make; HGCVideoError where it would be refused."""
        return scene_of(checked(self.options(values)))

    def add_clip(self, values: Mapping[str, Any]) -> Task:
        """Puts the clip of a form's values into the line; HGCVideoError where it is refused."""
        task = self._clip(values, "")
        self.line.add(task)
        return task

    def add_comparison(self, values: Mapping[str, Any], presets: Sequence[str]) -> str:
        """Puts the same clip under several presets into the line; gives back the comparison's name."""
        different = list(dict.fromkeys(presets))
        if not 2 <= len(different) <= MOST:
            raise InputError(f"presets={len(different)} are chosen; choose 2 or {MOST}")
        if values.get("seed") == "":  # one is drawn, the same for all
            values = {**values, "seed": secrets.randbelow(2**32)}
        group = secrets.token_hex(6)
        self.line.add(*[self._clip({**values, "preset": one}, group) for one in different])
        return group

    def add_control(self, values: Mapping[str, Any]) -> Task:
        """Puts the extraction of a form's control into the line."""
        options = self.options(values)
        options.pop("prompt", None)
        checked(options)
        task = self._task("control", "Control of the clip", options)
        self.line.add(task)
        return task

    def add_batch(self) -> Task:
        """Puts the work on the batch folder into the line, once."""
        if self.batch is None:
            raise InputError("no batch folder is open; start hgc-video ui with --batch FOLDER")
        for task in self.line.tasks():
            if task.kind == "batch" and not task.ended_already:
                return task
        folder = self.batch.folder
        task = self._task("batch", f"Batch {folder.name}", {"folder": str(folder)})
        self.line.add(task)
        return task

    def group(self, name: str) -> list[Task]:
        """The tasks of a comparison."""
        return [task for task in self.line.tasks() if task.group == name]

    def _clip(self, values: Mapping[str, Any], group: str) -> Task:
        options = self.options(values)
        scene = scene_of(checked(options))
        # A drawn seed stands in the shot file too.
        options["seed"] = scene.options.seed
        steps = self.estimates.plan(scene).steps
        task = self._task("clip", scene.options.prompt_line or "A clip", options)
        task.weights, task.group = tuple(max(row.macs, 1) for row in steps), group
        return task

    def _task(self, kind: str, title: str, options: Mapping[str, Any]) -> Task:
        task = Task(kind, title, options, self.folder, names=self.uploads.names_in(options))
        task.folder = self.folder / task.id
        return task

    def close(self) -> None:
        """Stops what runs."""
        self.line.close()

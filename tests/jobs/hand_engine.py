"""An engine for tests of a batch: workers that do what a script says."""

from __future__ import annotations

from pathlib import Path

from hgc_video.jobs.queue import Result
from hgc_video.jobs.task import Died, Ended, Outcome, Ready, Step


class HandEngine:
    """An engine of one slot whose workers do what a script says of each task, in order."""

    def __init__(self, *script):
        self.script, self.told, self.given, self.stopped = (
            list(script),
            [Ready("0", "host:1")],
            [],
            [],
        )
        self.closed = self.empty = False

    def start(self):
        pass

    def give(self, slot, task):
        self.given.append(task)
        Path(task.part).parent.mkdir(exist_ok=True)
        Path(task.part).write_text(f"{task.name} {len(self.given)}")
        self.told += self.script.pop(0)

    def stop(self, slot):
        self.stopped.append(self.given[-1].name)
        self.told.append(Ended(slot, Outcome("stopped")))

    def events(self, timeout_s):
        told, self.told = self.told, []
        return told

    def is_empty(self):
        return self.empty

    def close(self):
        self.closed = True


DONE = [Step("0", 1, 1), Ended("0", Outcome("done", Result("d", 1.0, 0.5)))]


DEAD = [Died("0", "killed"), Ready("0", "host:1")]


FAULT = [Ended("0", Outcome("failed", why="no disk", passing=True))]

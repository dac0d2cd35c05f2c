"""What a batch tells while it runs: bars on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

import typer

from ..errors import printable
from .shell import say

Tell = Callable[[dict[str, Any]], None]


@contextmanager
def telling(as_json: bool, jobs: int) -> Iterator[Tell]:
    """The observer of a batch of so many jobs that are left. What libraries print meanwhile goes to stderr,
    so that stdout holds these lines alone."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        if as_json:
            yield lambda event: typer.echo(json.dumps(event, ensure_ascii=False), file=out)
        elif out.isatty():
            with _Bars(jobs, out) as bars:
                yield bars
        else:
            yield lambda event: _plain(event, out)


def _plain(event: dict[str, Any], out: TextIO) -> None:
    line = line_of(event)
    if line:
        say(line, out)


def line_of(event: dict[str, Any]) -> str:
    """An event in a line, or in several where a run warned; nothing for a step."""
    what, job = event["event"], f"{event.get('job', ''):>5}  {event.get('name', '')}"
    if what == "done":
        told = f"done     {job}  {event['seconds']:.1f} s, {100 * event['macs_saved']:.0f} % of MACs saved"
        return "\n".join([told, *(f"warning  {job}  {warning}" for warning in event["warnings"])])
    if what in ("died", "fault"):
        rests = f"; {event['slot']} rests for {event['rest_s']:.0f} s" if what == "fault" else ""
        state = event["state"] or "taken over by another"
        return f"{what:<9}{job}: {event['why']}; {state}{rests}"
    if what == "recovered":
        return f"again    {event['job']:>5}  the process that ran it is gone"
    if what == "worker lost":
        return f"worker {event['slot']} is not started again: {event['why']}"
    if what == "queue waits":
        return f"waiting         {event['why'].partition(';')[0]}; tried again in {event['rest_s']:.0f} s"
    if what in ("step", "ready"):
        return ""
    return f"{what:<9}{job}" + (f": {event['why']}" if "why" in event else "")


class _Bars:
    """A bar for all jobs, with the time left and the share of the MACs saved, and one for each clip that is
    made; what ends stands as a line above them."""

    def __init__(self, jobs: int, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"), console=Console(file=out, highlight=False),
        )  # fmt: skip
        self._all = self._progress.add_task("jobs", total=jobs, more="")
        self._clips: dict[int, Any] = {}
        self._saved: list[float] = []

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        what, job = event["event"], event.get("job", 0)
        if what == "started":
            self._clips[job] = self._progress.add_task(
                event["name"], total=None, more=event["slot"]
            )
        elif what == "ready":
            return
        elif what == "step":
            self._progress.update(self._clips[job], completed=event["step"], total=event["steps"])
            return
        elif job in self._clips:
            self._progress.remove_task(self._clips.pop(job))
            if what in ("done", "failed") or event.get("state") == "set aside":
                self._progress.advance(self._all)
        if what == "done":
            self._saved.append(event["macs_saved"])
            mean = sum(self._saved) / len(self._saved)
            self._progress.update(self._all, more=f"{100 * mean:.0f} % of the MACs saved")
        if what != "started":
            self._progress.console.print(printable(line_of(event)), markup=False)

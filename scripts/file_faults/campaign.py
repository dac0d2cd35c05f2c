"""Runs a case's command with a fault at one boundary of its files, goes on without, and judges the result.

A process that has loaded the libraries is forked for every command, so that one takes seconds.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from . import judge, points, shim
from .cases import CASES, ROOT, Case, Command, Work
from .processes import Ended, command, part, run
from .shim import Boundary, Page

WRITES = ("write", "ftruncate")
_SYNCS = ("fsync", "fdatasync")

# By name: what happens, the error, and the boundaries that it can happen at (none: all).
FAULTS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "kill": (shim.KILL, 0, ()),
    "torn": (shim.TORN, 0, ("write",)),
    "moment": (shim.NONE, 0, ()),
    "point": (shim.NONE, 0, ()),
    "interrupt": (shim.INTERRUPT, 0, ()),
    "disk full": (shim.FAIL_EVER, errno.ENOSPC, (*WRITES, "create", "mkdir")),
    "read-only": (shim.FAIL_EVER, errno.EROFS, ()),
    "sync fails": (shim.FAIL_ONCE, errno.EIO, _SYNCS),
    "write fails": (shim.FAIL_ONCE, errno.EIO, WRITES),
    "vanishes": (shim.VANISH, 0, ()),
}
_DEADLY = ("kill", "torn", "moment", "point")


@dataclass
class Row:
    """One fault: the boundary that it was at, the verdict and why. `left` are files that a killed command
    left aside and that nothing has removed."""

    case: str
    fault: str
    number: int
    call: str
    path: str
    verdict: str = "pass"
    why: list[str] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0

    def worse(self, verdict: str, *why: str) -> None:
        """Gives a verdict, where none was given before."""
        if why and self.verdict == "pass":
            self.verdict = verdict
        self.why += why


class Campaign:
    """A case's campaign in a folder that is made anew for every fault."""

    def __init__(self, case: Case, place: Path) -> None:
        self.case, self.place = case, place
        self.folder, self._template = place / "try", place / "template"
        self._log = place / "points.log"
        self.page = Page(
            place / f"page of {case.name}", self.folder
        )  # none is cut while it is mapped
        os.environ[shim.PAGE_VARIABLE] = str(self.page.path)
        _map_page()
        self._prepare()

    def _prepare(self) -> None:
        """Makes what lies there before, and the result without a fault."""
        self.page.disarm()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("made", "home"):
            (self.folder / name).mkdir(parents=True)
        self._must(lambda: write_pose(self.folder))
        self._must(lambda: self.case.prepare(self.folder, command))
        shutil.rmtree(self._template, ignore_errors=True)
        shutil.copytree(self.folder, self._template)
        self.before = judge.states(self.folder)
        self.page.arm(shim.NONE)
        began = time.monotonic()
        with self._pointed():
            self._must(self._with(self.case.command))
        self.whole_s = time.monotonic() - began
        self.boundaries = self.page.disarm()
        self.reached = points.to_try(points.read_log(self._log))
        if self.case.again is not self.case.command:
            self._must(self._with(self.case.again))
        self.whole = judge.states(self.folder)

    def _must(self, work: Work) -> None:
        ended = run(self.place, self.folder, work)
        if ended.code != 0:
            raise SystemExit(f"{self.case.name} fails without a fault: {ended.code} {ended.said}")

    def _with(self, arguments: Command) -> Work:
        """What a command does, as work."""
        told = arguments(self.folder)
        return partial(command, told) if isinstance(told, list) else partial(part, told)

    def points(self, fault: str, most: int, seed: int) -> list[Boundary]:
        """The boundaries that a fault is tried at: all, or so many of them by the seed."""
        if fault == "moment":
            every = [Boundary(k + 1, 0, "moment", "", "", 0) for k in range(most)]
            return every
        if fault == "point":
            return _some(
                [Boundary(k, 0, at.side, at.name, "", at.time) for k, at in enumerate(self.reached, 1)],
                most, f"{self.case.name} {fault} {seed}",
            )  # fmt: skip
        calls = FAULTS[fault][2]
        every = [one for one in self.boundaries if not calls or one.call in calls]
        return _some(every, most, f"{self.case.name} {fault} {seed}")

    def tried(self, fault: str, at: Boundary, seed: int) -> Row:
        """A command with the fault, and the one after it."""
        row = Row(self.case.name, fault, at.number, at.call, _short(at, self.folder))
        began = time.monotonic()
        shutil.rmtree(self.folder)
        shutil.copytree(self._template, self.folder)
        kind, error, _ = FAULTS[fault]
        self.page.arm(kind, at.number, error)
        moment = None
        if fault == "moment":
            moment = random.Random(f"{self.case.name} {seed} {at.number}").uniform(0, self.whole_s)
        point = points.Point(at.path, at.call, at.nbytes) if fault == "point" else None
        with self._pointed(point) if point else nullcontext():
            ended = run(self.place, self.folder, self._with(self.case.command), moment)
        met = point is not None and point in points.read_log(self._log)
        fired = self.page.fired or fault == "moment" or met
        self.page.disarm()
        away = self.folder.with_name("try.away")
        if away.exists():
            shutil.rmtree(self.folder / "made", ignore_errors=True)  # what was made in its place
            away.rename(self.folder / "made")
        self._judge_end(row, ended, fired)
        row.worse("half written", *judge.half_written(self.folder, [self.before, self.whole]))
        gone = set(self.before) - set(judge.states(self.folder))
        if self.case.name != "cache --clear":
            row.worse("lost result", *(f"the older {name} is gone" for name in sorted(gone)))
        before = judge.progress(self.folder)
        again = run(self.place, self.folder, self._with(self.case.again))
        if again.code != 0:
            row.worse("hard failure", f"the next run answers {again.code}: {again.said[-300:]}")
        else:
            row.worse("silent divergence", *_differing(judge.states(self.folder), self.whole))
            row.worse("lost work", *judge.lost(self.folder, before))
            row.worse("litter", *judge.left_work(self.folder))
        row.left = len(judge.litter(self.folder))
        if fault not in (*_DEADLY, "interrupt", "read-only", "vanishes") and row.left:
            row.worse("litter", *judge.litter(self.folder))
        row.seconds = round(time.monotonic() - began, 2)
        return row

    @contextmanager
    def _pointed(self, point: points.Point | None = None) -> Iterator[None]:
        """Commands note the points that they reach, and are killed at this one."""
        self._log.unlink(missing_ok=True)
        own = {points.LOG: str(self._log)} | ({points.ARMED: str(point)} if point else {})
        os.environ.update(own)
        try:
            yield
        finally:
            for name in own:
                del os.environ[name]

    def _judge_end(self, row: Row, ended: Ended, fired: bool) -> None:
        """Whether the command ended as it is to at such a fault."""
        if ended.code == -signal.SIGXCPU:
            row.worse("hang", "it did not end")
        if not fired and row.fault != "moment":
            row.worse("not met", f"the boundary was not reached; {ended.code} {ended.said[-200:]}")
        if row.fault in _DEADLY:
            return
        allowed = (0, 130) if row.fault == "interrupt" else (0, 2)
        if self.case.fails:
            allowed = (*allowed, 1)  # a batch whose jobs have failed
        if ended.code not in allowed:
            row.worse("wrong end", f"answers {ended.code}: {ended.said[-300:]}")
        if "Traceback" in ended.said or "internal error" in ended.said:
            row.worse("wrong end", f"says {ended.said[-300:]}")


def _map_page() -> None:
    """Has the preloaded library of this process look for its page again."""
    import ctypes

    ctypes.CDLL(None).file_faults_begin()


def _some(every: list[Boundary], most: int, seed: str) -> list[Boundary]:
    """All, or so many of them by the seed, in their order."""
    if len(every) <= most:
        return every
    return sorted(random.Random(seed).sample(every, most), key=lambda one: one.number)


def _short(at: Boundary, folder: Path) -> str:
    names = [name.replace(f"{folder}/", "") for name in (at.path, at.other) if name]
    return " -> ".join(names)


def _differing(found: dict[str, str], whole: dict[str, str]) -> Iterator[str]:
    for name in sorted(found.keys() | whole.keys()):
        if found.get(name) != whole.get(name):
            state = (
                "another one"
                if name in found and name in whole
                else "missing"
                if name in whole
                else "too many"
            )
            yield f"{name} is {state}"


def preload_libraries() -> None:
    """Loads what every command loads."""
    import torch

    torch.set_num_threads(1)
    import hgc_video.cli
    import hgc_video.evaluate.page
    import hgc_video.evaluate.run
    import hgc_video.evaluate.trials
    import hgc_video.generator
    import hgc_video.jobs.batch
    import hgc_video.jobs.checkpoint.work
    import hgc_video.preprocess.canny
    import hgc_video.sampling.make
    import hgc_video.tune.calibrate
    import hgc_video.tune.search
    from hgc_video.models.load import load_pipeline
    from hgc_video.models.parts import ModelParts

    # Loaded once: every command is forked with the pipeline as it was loaded, and reads no weights again.
    pipelines: dict[str, Any] = {}

    def loaded(model: str, *controls: str, **options: Any) -> Any:
        told = {name: value for name, value in options.items() if value not in (None, False)}
        key = repr((Path(model).name, controls, sorted({"parts": ModelParts(), **told}.items())))
        if key not in pipelines:
            pipelines[key] = load_pipeline(model, *controls, **options)
        return pipelines[key]

    for module in (hgc_video.generator, hgc_video.evaluate.trials):
        module.load_pipeline = loaded
    loaded("puppet", "pose", device="cpu")
    # No clip is read or written here: the threads of ffmpeg's libraries do not outlive a fork.


def write_pose(folder: Path) -> None:
    """The first frames of the example, as a clip of their own."""
    from hgc_video.media.video import read_frames, write_video

    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(3))
    write_video(folder / "pose.mp4", frames, 8)


def run_case(
    name: str,
    faults: list[str],
    most: int,
    seed: int,
    place: Path,
    known: set[tuple[str, str, int]],
) -> Iterator[dict[str, Any]]:
    """Rows of a case, those `known` left out; before them how many boundaries there are, by fault."""
    campaign = Campaign(CASES[name], place)
    yield {"case": name, "boundaries": len(campaign.boundaries),
           "calls": _counted(campaign.boundaries), "seconds": round(campaign.whole_s, 2)}  # fmt: skip
    for fault in faults:
        for at in campaign.points(fault, most, seed):
            if (name, fault, at.number) not in known:
                yield asdict(campaign.tried(fault, at, seed))


def _counted(boundaries: list[Boundary]) -> dict[str, int]:
    calls = [one.call for one in boundaries]
    return {call: calls.count(call) for call in sorted(set(calls))}

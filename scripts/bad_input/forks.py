"""Tries one input in a fork of this process, which has imported all, under limits of time and memory."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hgc_video.errors import HGCVideoError

MEMORY_NBYTES = 2 << 30  # beyond what the process has before
SECONDS, WALL_S = 20, 90  # of the processor; of the clock, should it wait for something
_GOOD = ("right", "refused")


@dataclass(frozen=True)
class Verdict:
    """How one input ended: "right", "refused" with one line of ours, or what is a defect; and why."""

    name: str
    why: str
    seconds: float

    @property
    def is_defect(self) -> bool:
        """Whether it is neither a right result nor a refusal of ours."""
        return self.name not in _GOOD


def tried(check: Callable[[], Any]) -> Verdict:
    """Calls `check` in a fork, where it raises an error of ours, AssertionError for a wrong result, or
    returns."""
    begun = time.monotonic()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _try(check, writes)
    os.close(writes)
    told = b""
    while True:
        left = begun + WALL_S - time.monotonic()
        ready, _, _ = select.select([reads], [], [], max(0.0, left))
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        if not (more := os.read(reads, 65536)):
            break
        told += more
    os.close(reads)
    _, status = os.waitpid(child, 0)
    seconds = round(time.monotonic() - begun, 3)
    if told:
        return Verdict(*json.loads(told), seconds)
    if seconds >= WALL_S:
        return Verdict("hang", f"more than {WALL_S} s", seconds)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    name = {signal.SIGXCPU: "hang", signal.SIGKILL: "memory"}.get(
        signal.Signals(number) if number else None, "crash"
    )  # type: ignore[call-overload]
    return Verdict(
        name, f"signal {number}" if number else f"exit {os.WEXITSTATUS(status)}", seconds
    )


def _try(check: Callable[[], Any], writes: int) -> NoReturn:
    """In the fork: runs the check under limits and tells how it ended."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    most = _memory_now() + MEMORY_NBYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    try:
        verdict = ended(check)
    except BaseException as error:
        verdict = ("traceback", repr(error)[:300])
    os.write(writes, json.dumps(verdict).encode()[:60000])
    os._exit(0)


def ended(check: Callable[[], Any]) -> tuple[str, str]:
    """How a check ended, and why where it did not return."""
    try:
        check()
    except HGCVideoError as error:
        told = str(error)
        if not told or "\n" in told:
            return "several lines", told[:300]
        return "refused", told[:300]
    except MemoryError as error:
        return "memory", _place(error)
    except AssertionError as error:
        return "wrong", f"{error} {_place(error)}"
    except BaseException as error:
        return (
            "traceback",
            f"{type(error).__name__}: {' '.join(str(error).split())[:160]} {_place(error)}",
        )
    return "right", ""


def _place(error: BaseException) -> str:
    """The last line of ours that an error passed, and the one that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/hgc_video/" in f.filename and "site-packages" not in f.filename]
    last = frames[-1] if frames else None
    places = [*(ours[-1:]), *([last] if last is not None and last not in ours[-1:] else [])]
    return "at " + ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in places)


def _memory_now() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

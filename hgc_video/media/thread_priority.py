"""Threads keep their scheduling: SVT-AV1, run as root, makes its own and the caller's real-time threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Gives every thread the calling thread's scheduling back, where what runs within changed it.

    A real-time thread takes its core from every other program, and whatever this process starts later
    inherits that. Does nothing where the system has no such scheduling (macOS, Windows).
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in _threads():
            _set(thread, policy, param)


def _threads() -> list[int]:
    try:
        return [int(task.name) for task in Path("/proc/self/task").iterdir()]
    except FileNotFoundError:  # a system without /proc
        return [0]


def _set(thread: int, policy: int, param: os.sched_param) -> None:
    try:
        if os.sched_getscheduler(thread) != policy:
            os.sched_setscheduler(thread, policy, param)
    except (ProcessLookupError, PermissionError):  # it ended, or it never could change
        pass

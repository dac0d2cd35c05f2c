"""An error that ends a task is told in one line, and says whether the task may be tried again."""

from __future__ import annotations

import errno
import os

import pytest

from hgc_video.errors import InputError, VideoError
from hgc_video.jobs.failures import failed_by
from hgc_video.jobs.task import Outcome


def of_system(number: int, name: str = "/data/a.mp4") -> OSError:
    return OSError(number, os.strerror(number), name)


def test_a_fault_of_the_user_is_told_as_it_is(capfd):
    assert failed_by(VideoError("no\n such clip")) == Outcome("failed", why="no such clip")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "why", "passing"),
    [
        (of_system(errno.ENOSPC), 'the disk is full: cannot write "/data/a.mp4"', True),
        (of_system(errno.EROFS), 'cannot write "/data/a.mp4": read-only file system', True),
        (of_system(errno.EIO), '"/data/a.mp4" is on a disk or a mount that fails (input', True),
        (OSError(errno.EIO, "a"), '"a file" is on a disk or a mount that fails (input', True),
        (of_system(errno.EACCES), '"/data/a.mp4" cannot be used: permission denied', False),
        (MemoryError("1 GiB"), "memory ran out (1 GiB)", False),
    ],
)
def test_a_fault_of_the_machine_is_told_with_what_to_do(error, why, passing, capfd):
    outcome = failed_by(error)
    assert outcome.state == "failed" and outcome.why.startswith(why) and outcome.passing is passing
    assert outcome.result is None and not outcome.loaded and capfd.readouterr().err == ""


def test_what_was_raised_from_a_fault_that_may_pass_may_pass_too():
    error = InputError("cannot write")
    error.__cause__ = of_system(errno.ENOSPC)
    assert failed_by(error) == Outcome("failed", why="cannot write", passing=True)


def test_any_other_error_is_ours_and_its_traceback_is_printed(capfd):
    try:
        {}["codes"]
    except KeyError as error:
        outcome = failed_by(error)
    assert outcome == Outcome("failed", why="internal error: KeyError: 'codes'")
    printed = capfd.readouterr().err
    assert printed.startswith("Traceback") and '{}["codes"]' in printed

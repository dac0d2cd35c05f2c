"""Whether the process that runs a job is still there, by its host, its number and when it began."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import psutil
import pytest

from hgc_video.jobs.owner import is_gone, is_here, this_owner

HERE = platform.node()


@pytest.fixture
def child():
    """A process of our own that waits; ended and reaped after the test."""
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def owner_of(pid):
    return f"{HERE}:{pid}:{began(pid):.2f}"


def began(pid):
    """When a process began: on Linux since the system did, as the time of day may be set meanwhile."""
    booted = psutil.boot_time() if sys.platform == "linux" else 0.0
    return psutil.Process(pid).create_time() - booted


def test_this_process_is_told_by_host_number_and_beginning():
    assert this_owner() == owner_of(os.getpid())
    assert is_here(this_owner()) is True and is_gone(this_owner()) is False


@pytest.mark.skipif(
    sys.platform != "linux", reason="the time of day of a start moves on Linux alone"
)
@pytest.mark.parametrize("jump_s", [1, -3600])
def test_a_clock_that_is_set_ends_no_process(monkeypatch, jump_s):
    """Linux tells the time of day of the system's start anew, and the clock may be slewed by a second too."""
    me, booted = this_owner(), psutil._pslinux.boot_time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted() + jump_s)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + jump_s)
    assert psutil.Process().create_time() != pytest.approx(began(os.getpid()) + booted(), abs=0.5)
    assert is_here(me) and not is_gone(me) and this_owner() == me


def test_another_process_is_here_until_it_ends(child):
    owner = owner_of(child.pid)
    assert is_here(owner) and not is_gone(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert is_gone(owner) is True and is_here(owner) is False, "dead and not yet reaped"
    child.communicate()
    assert is_gone(owner) is True and is_here(owner) is False


def test_a_number_that_is_used_again_is_another_process():
    pid = os.getpid()
    for start in ("1.00", "", f"{began(pid) + 0.01:.2f}"):
        owner = f"{HERE}:{pid}:{start}"
        assert is_gone(owner) and not is_here(owner)


def test_of_another_machine_nobody_can_tell():
    for start in (1.0, psutil.Process().create_time()):
        owner = f"not-{HERE}:{os.getpid()}:{start:.2f}"
        assert is_gone(owner) is False and is_here(owner) is False


@pytest.mark.parametrize("pid", ["x", "", "-1", "1.5", "²", "\u0661", "9" * 16])
def test_what_is_no_number_is_not_surely_gone(pid):
    assert is_gone(f"{HERE}:{pid}:1.00") is False


@pytest.mark.parametrize("pid", ["9" * 15, str(2**31), "99999999"])
def test_a_number_that_no_process_has_is_gone(pid):
    assert is_gone(f"{HERE}:{pid}:1.00") is True and is_here(f"{HERE}:{pid}:1.00") is False


def test_an_owner_of_a_host_alone_is_not_gone():
    assert is_gone(HERE) is False and is_gone("") is False
    assert is_here("") is (HERE == "")

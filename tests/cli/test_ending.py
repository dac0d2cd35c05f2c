"""Signals while a command ends: they end it at once, and no traceback is shown; and two commands at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
ROOT = Path(__file__).parents[2]
CANCELLED = "cancelled; nothing was written\n"
# A command that works for long, and then needs long to exit.
SLOW = """
import atexit, os, signal, sys, threading, time
from hgc_video.cli import main
from hgc_video.jobs import schema

def work():
    os.write(2, b"at work\\n")  # in one piece, beside another thread
    time.sleep(600)

def leave():
    os.write(2, b"leaving\\n")
    time.sleep(600)

for number in (signal.SIGINT, signal.SIGTERM):  # which a shell's background jobs may ignore
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
schema.shot_schema = work
if sys.argv[1] == "atexit":
    atexit.register(leave)
else:
    threading.Thread(target=leave).start()
sys.argv = ["hgc-video", "schema"]
main()
"""


def begun(*arguments, cwd=None):
    return subprocess.Popen(
        [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cwd,
    )  # fmt: skip


def read_until(process, wanted):
    """The lines that a process tells up to where all that are wanted were told."""
    shown = []
    while not set(wanted) <= set(shown):
        shown.append(process.stderr.readline())
        assert shown[-1], shown
    return shown


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("slow", ["atexit", "thread"])
def test_a_second_signal_ends_a_cancelled_command_at_once(slow, second):
    process = begun(SLOW, slow)
    try:
        shown = read_until(process, ["at work\n"])
        process.send_signal(signal.SIGINT)
        shown += read_until(
            process, [line for line in (CANCELLED, "leaving\n") if line not in shown]
        )
        process.send_signal(second)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -second
    assert sorted(shown) == ["at work\n", CANCELLED, "leaving\n"] and not rest


def test_a_second_signal_at_any_moment_shows_no_traceback():
    for _ in range(5):
        process = begun(SLOW, "atexit")
        try:
            assert process.stderr.readline() == "at work\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == CANCELLED
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == -signal.SIGINT and rest in ("", "leaving\n")


def test_of_two_that_write_one_new_shot_file_the_second_is_refused(tmp_path):
    video = ROOT / "examples" / "dance_pose.mp4"
    code = "from hgc_video.cli import main; main()"
    both = [begun(code, "init", str(video), "--out", "a.yaml", cwd=tmp_path) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], told
    ((_, error),) = (one for one, process in zip(told, both, strict=True) if process.returncode)
    assert error == 'error: "a.yaml" exists; name another file, or overwrite it with --force\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]

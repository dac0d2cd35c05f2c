"""What a batch tells while it runs: lines, JSON that is nothing else, and bars on a terminal."""

from __future__ import annotations

import io
import json

from hgc_video.cli.batch_lines import telling

EVENTS = [
    {"event": "ready", "slot": "0-cpu", "where": "host:1"},
    {"event": "started", "job": 1, "name": "a.mp4", "slot": "0-cpu"},
    {"event": "step", "job": 1, "name": "a.mp4", "slot": "0-cpu", "step": 5, "steps": 25},
    {"event": "died", "job": 1, "name": "a.mp4", "why": "ended by SIGKILL", "state": "queued"},
    {"event": "started", "job": 1, "name": "a.mp4", "slot": "0-cpu"},
    {"event": "done", "job": 1, "name": "a.mp4", "seconds": 2.0, "macs_saved": 0.6, "warnings": ["no sound"],
     "loaded": True},
    {"event": "started", "job": 2, "name": "[b].mp4", "slot": "0-cpu"},
    {"event": "failed", "job": 2, "name": "[b].mp4", "why": "no file a\x1b[2J"},
    {"event": "started", "job": 3, "name": "c.mp4", "slot": "0-cpu"},
    {"event": "fault", "job": 3, "name": "c.mp4", "slot": "0-cpu", "why": "the disk is full",
     "state": "queued", "rest_s": 20.0},
    {"event": "queue waits", "why": "the queue cannot be written", "rest_s": 10.0},
    {"event": "recovered", "job": 3},
    {"event": "worker lost", "slot": "0-cpu", "why": "its worker ended with code 1"},
]  # fmt: skip
LINES = """\
started      1  a.mp4
died         1  a.mp4: ended by SIGKILL; queued
started      1  a.mp4
done         1  a.mp4  2.0 s, 60 % of MACs saved
warning      1  a.mp4  no sound
started      2  [b].mp4
failed       2  [b].mp4: no file a\\x1b[2J
started      3  c.mp4
fault        3  c.mp4: the disk is full; queued; 0-cpu rests for 20 s
waiting         the queue cannot be written; tried again in 10 s
again        3  the process that ran it is gone
worker 0-cpu is not started again: its worker ended with code 1
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def tell_all(as_json):
    with telling(as_json, 3) as tell:
        for event in EVENTS:
            tell(event)
        print("a library prints")


def test_plain_lines(capsys):
    tell_all(False)
    told = capsys.readouterr()
    assert told.out == LINES and told.err == "a library prints\n"


def test_json_lines_are_all_that_stdout_holds(capsys):
    tell_all(True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == EVENTS


def test_a_terminal_sees_bars_and_what_ended(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    tell_all(False)
    shown = screen.getvalue()
    for part in (
        "2/3",
        "60 % of the MACs saved",
        "a.mp4",
        r"[b].mp4: no file a\x1b[2J",
        "no sound",
    ):
        assert part in shown, part

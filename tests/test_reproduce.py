"""scripts/reproduce: its parts make every file of results, when they are due, and go on after a kill."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("doit", reason="the extra `dev` is not installed")

from hgc_video.evaluate.methods import make_method, split_methods

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import reproduce  # noqa: E402

FILE = ROOT / "configs" / "reproduce.yaml"
PARTS = reproduce.read_parts(FILE, small=False)


def made(pattern):
    return [part.name for part in PARTS if any(Path(pattern).match(m) for m in part.makes)]


def test_names_are_told_once_and_needs_are_parts():
    names = [part.name for part in PARTS]
    kinds = {part.kind for part in PARTS} | {"weights"}
    assert len(set(names)) == len(names)
    assert {kind for part in PARTS for kind in part.needs} <= kinds
    assert sum(part.minutes for part in PARTS) <= 6 * 60


def test_every_file_of_results_and_every_picture_is_made_by_one_part():
    folders = (("configs/results", "*.json"), ("configs/results", "*.png"), ("examples", "*.png"),
               ("examples/notebooks", "*.ipynb"), ("configs/schedules", "**/*.yaml"))  # fmt: skip
    for folder, pattern in folders:
        found = sorted((ROOT / folder).glob(pattern))
        assert found
        for path in found:
            assert len(made(path.relative_to(ROOT))) == 1, path
    assert made("configs/puppet-calibration.yaml") == ["calibration"]
    assert all(made(page.relative_to(ROOT)) == ["tables"] for page in pages())


def pages():
    import runpy

    return runpy.run_path(str(ROOT / "scripts" / "results_table.py"))["PAGES"]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_commands_are_of_this_checkout_and_write_what_the_part_makes(part):
    """A misspelt option or method is found here and not after hours."""
    for small in (False, True):
        commands = next(p.run for p in reproduce.read_parts(FILE, small) if p.name == part.name)
        for command in commands:
            program, *arguments = shlex.split(command)
            for at, word in enumerate(arguments):
                if word == "--methods" and program == "hgc-video":
                    assert all(make_method(one) for one in split_methods(arguments[at + 1]))
            assert known_options(program, arguments) >= options(arguments)
            assert all("*" in m or m in arguments or not writes(program) for m in part.makes)


def writes(program):
    return program == "hgc-video"


def options(arguments):
    return {word for word in arguments if re.match(r"--[a-z]", word)}


def known_options(program, arguments):
    if program == "hgc-video":
        import typer.main

        from hgc_video.cli import app, shell  # noqa: F401

        command = typer.main.get_command(app).get_command(None, arguments[0]).loaded()
        return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return set(re.findall(r'"(--[a-z-]+)"', (ROOT / arguments[0]).read_text()))


ENTRY = """
- name: first
  what: a file
  reads: [in.txt]
  makes: [a.txt]
  minutes: 1
  run: [python step.py a.txt in.txt]
- name: second
  what: another
  needs: [first]
  makes: [b.txt]
  minutes: 1
  run: ["python step.py b.txt a.txt {wait}"]
"""
STEP = """
import sys, time
from pathlib import Path
out, read, *wait = sys.argv[1:]
with open("log.txt", "a") as log: log.write(out + "\\n")
time.sleep(float(wait[0]) if wait else 0)
Path(out).write_text(Path(read).read_text() + out)
"""
RUN = """
import sys
from pathlib import Path
import reproduce
reproduce.ROOT = Path.cwd()
sys.exit(reproduce.main())
"""


@pytest.fixture
def tree(tmp_path):
    """A tree with two parts, the second made of the first one's file."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "reproduce.yaml").write_text(ENTRY.format(wait=""))
    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "in.txt").write_text("in ")
    return tmp_path


def start(tree, *arguments):
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], cwd=tree, env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def run(tree, *arguments):
    """What was made, in order."""
    (tree / "log.txt").write_text("")
    process = start(tree, *arguments)
    told = process.communicate(timeout=120)[0]
    assert process.returncode == 0, told
    return (tree / "log.txt").read_text().split()


def test_parts_are_made_when_they_are_due(tree):
    assert run(tree) == ["a.txt", "b.txt"]
    assert (tree / "b.txt").read_text() == "in a.txtb.txt"
    assert run(tree) == []
    (tree / "in.txt").write_text("other ")
    assert run(tree, "--only", "first") == ["a.txt"]
    assert run(tree) == ["b.txt"], "what the first made is another file"
    assert run(tree, "--only", "second", "--alone", "--again") == ["b.txt"]
    record = json.loads((tree / "configs" / "reproduced.json").read_text())
    assert record["first"]["_values_:"]["minutes"] >= 0 and record["first"]["_values_:"]["date"]
    told = start(tree, "--list").communicate(timeout=60)[0]
    assert re.search(r"^second +\d\.\d min +20\d\d-", told, re.MULTILINE) and told.count("\n") == 3


def test_a_killed_run_goes_on_after_the_parts_that_were_made(tree):
    (tree / "configs" / "reproduce.yaml").write_text(ENTRY.format(wait="60"))
    process = start(tree)
    log = tree / "log.txt"
    ends = time.monotonic() + 60
    while "b.txt" not in (log.read_text() if log.exists() else "") and time.monotonic() < ends:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert log.read_text().split() == ["a.txt", "b.txt"] and not (tree / "b.txt").exists()
    (tree / "configs" / "reproduce.yaml").write_text(ENTRY.format(wait="0"))
    assert run(tree) == ["b.txt"]

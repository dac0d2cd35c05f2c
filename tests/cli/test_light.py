"""What commands load: help and a look at a queue next to nothing, and those that only tell, no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import typer

from hgc_video.cli import app
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.queue import Queue

RUN = """
import json, sys
from contextlib import redirect_stdout
from hgc_video.cli import app

with redirect_stdout(sys.stderr):
    for arguments in json.loads(sys.argv[1]):
        try:
            app(arguments)
        except SystemExit as end:
            assert not end.code, arguments
print(json.dumps(list(sys.modules)))
"""
ENGINES = {"torch", "diffusers", "transformers", "av", "multiprocessing"}
OPTIONS = {
    "numpy",
    "PIL",
    "yaml",
    "hgc_video.options",
    "hgc_video.plan.presets",
    "hgc_video.plan.policies",
}


def loaded(*calls):
    """The modules that these calls of the command line load."""
    command = [sys.executable, "-c", RUN, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_help_and_a_look_at_a_queue_load_no_options(tmp_path):
    queue = Queue(tmp_path)
    add_jobs(queue, [NewJob("a.mp4", {}, "k", "m")])
    queue.close()
    look = ["batch", str(tmp_path)]
    found = loaded(["--help"], [*look, "--status"], [*look, "--cancel", "1"], ["batch", "--help"])
    assert not found & (ENGINES | OPTIONS)


def test_commands_that_only_tell_load_no_engine():
    found = loaded(
        ["policies"], ["policies", "hgc"], ["models"], ["schema"], ["cache"], ["generate", "--help"]
    )
    assert not found & ENGINES and "hgc_video.options" in found


def test_help_says_of_every_command_what_the_command_says_itself():
    listed = typer.main.get_command(app).commands
    for name, command in listed.items():
        itself = command.loaded()
        assert itself.name == name and itself.rich_help_panel == command.rich_help_panel
        assert " ".join(itself.help.split("\n\n")[0].split()) == command.help
    assert {one.callback.__name__ for one in app.registered_commands} == set(listed)

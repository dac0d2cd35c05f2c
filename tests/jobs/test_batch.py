"""A batch as it is called: on this machine, with workers that are killed, and what it answers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.jobs.batch import EngineChoice, add_to, listed_jobs, work_off
from hgc_video.jobs.drive import Stop
from hgc_video.jobs.queue import Queue

from .conftest import PROMPT


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def listed(tmp_path, tiny):
    """Writes a list of jobs and gives its path."""

    def write(**told):
        (tmp_path / "jobs.yaml").write_text(yaml.safe_dump({"defaults": tiny, **told}))
        return tmp_path / "jobs.yaml"

    return write


def add(source):
    folder = source.with_suffix(".batch")
    jobs = listed_jobs(source, seeds=None, matrix={}, pattern=None, allow_outside=False)
    return folder, add_to(folder, jobs)


@pytest.mark.slow
def test_a_batch_whose_worker_is_killed(listed, tmp_path):
    """The killed job is made again, one that kills its worker twice is set aside, the rest is done with one
    loading of the model a worker; and the clips are those that a process of their own makes."""
    source = listed(jobs=[{"name": name} for name in ("bad", "a", "b")], seeds=1)
    folder, _ = add(source)
    told, tries = [], {"a": 0, "b": 0, "bad": 0}

    def watch(event):
        told.append(event)
        if event["event"] == "started":
            name = event["name"].removesuffix(".mp4")
            tries[name] += 1
            if name == "bad":
                ready = [e for e in told if e["event"] == "ready"][-1]
                os.kill(int(ready["where"].rpartition(":")[2]), signal.SIGKILL)

    work_off(folder, EngineChoice(workers=1), watch, Stop())
    assert tries == {"bad": 2, "a": 1, "b": 1}
    died = [event for event in told if event["event"] == "died"]
    assert [event["state"] for event in died] == ["queued", "set aside"]
    assert all("ended by SIGKILL" in event["why"] for event in died)
    done = {event["name"]: event for event in told if event["event"] == "done"}
    assert [event["loaded"] for event in done.values()] == [True, False]
    assert set(done) == {"a.mp4", "b.mp4"} == {path.name for path in folder.glob("*.mp4")}
    hgc_video.generate(
        tmp_path / "pose.mp4", PROMPT, num_frames=1, num_inference_steps=1, out=folder / "own.mp4",
        progress=False,
    )  # fmt: skip
    own = hashlib.sha256((folder / "own.mp4").read_bytes()).hexdigest()
    assert {event["digest"] for event in done.values()} == {own}
    shown = invoke("batch", source, "--status")
    assert shown.exit_code == 0 and "2 done, 1 set aside" in shown.stdout, shown.output


@pytest.mark.slow
def test_a_batch_that_is_stopped_goes_on_and_says_what_failed(listed):
    """As a command: Ctrl-C once ends it with its jobs in the queue; then JSON lines alone on stdout, and
    exit code 1 with a list."""
    source = listed(jobs=[{"name": "wrong", "num_frames": 99}, {"name": "good"}])
    command = [
        sys.executable,
        "-c",
        "from hgc_video.cli import main; main()",
        "batch",
        source,
        "--json",
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(running.stdout.readline()) == {
        "event": "added", "new": 2, "done": 0, "waiting": 0, "changed": 0,
    }  # fmt: skip
    assert json.loads(running.stdout.readline())["event"] == "ready"
    running.send_signal(signal.SIGINT)
    told, errors = running.communicate()
    assert running.returncode == 130 and "go on with:  hgc-video batch" in errors
    counts = json.loads(told.splitlines()[-1])["counts"]
    assert counts["running"] == 0 and counts["queued"] >= 1
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "1 jobs have no result" in done.stderr, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["counts"]["done"] == 1 and end["lost"][0]["name"] == "wrong.mp4"
    assert "num_frames=99 is beyond the clip" in end["lost"][0]["why"]


def test_what_is_asked_of_a_queue_is_answered_without_a_run(listed):
    source = listed(jobs=[{"name": "a"}, {"name": "b"}])
    missing = invoke("batch", source, "--status")
    assert missing.exit_code == 2 and "is no batch folder" in missing.stderr
    folder, added = add(source)
    assert str(added) == "2 new"
    told = json.loads(invoke("batch", folder, "--status", "--json").stdout)
    assert told["counts"]["queued"] == 2 and told["running"] == []
    assert invoke("batch", source, "--cancel", 2).stdout == "job 2 is cancelled\n"
    assert invoke("batch", source, "--cancel", 9).exit_code == 2
    queue = Queue(folder)
    running = queue.claim("host:1/0-cpu")
    assert "stops at its next step" in invoke("batch", source, "--cancel", 1).stdout
    assert "step 0 of ?  on host:1/0-cpu" in invoke("batch", source, "--status").stdout
    queue.fail(running, "why")
    assert "failed       1  a.mp4: why" in invoke("batch", source, "--status").stdout
    refused = invoke("batch", folder, "--seeds", 2)
    assert refused.exit_code == 2 and "whose jobs are there" in refused.stderr
    for wrong in (["--engine", "slurm"], ["--workers", 0]):
        assert invoke("batch", source, *wrong, "--retry-failed").exit_code == 2
    queue.close()

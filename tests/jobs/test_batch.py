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
from hgc_video.jobs.batch import add_to, listed_jobs
from hgc_video.jobs.queue import Queue
from hgc_video.jobs.queue_status import rows_of

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


def command(source):
    """A batch as a command of its own; told the device, it need not look for one."""
    run = [sys.executable, "-c", "from hgc_video.cli import main; main()"]
    return [*run, "batch", source, "--devices", "cpu", "--json"]


def watched(source, stopped_at=None):
    """Runs a batch whose worker is killed whenever it begins bad.mp4, and which gets Ctrl-C when it begins
    another; gives what it told, its exit code and what it printed to stderr."""
    running = subprocess.Popen(
        command(source), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told, worker = [], 0
    for line in running.stdout:
        told.append(event := json.loads(line))
        if event["event"] == "ready":
            worker = int(event["where"].rpartition(":")[2])
        elif event["event"] == "started" and event["name"] == "bad.mp4":
            os.kill(worker, signal.SIGKILL)
        elif event["event"] == "started" and event["name"] == stopped_at:
            running.send_signal(signal.SIGINT)
    return told, running.wait(), running.stderr.read()


@pytest.mark.slow
def test_a_batch_whose_worker_is_killed_and_that_is_stopped(listed, tmp_path):
    """A job that kills its worker is made again after the others, and set aside when it has done so twice;
    Ctrl-C once ends the batch with its jobs in the queue. Called again it goes on with one loading of the
    model, tells what failed with exit code 1, and prints JSON lines alone; clips are as a process of their
    own makes them."""
    names = (
        {"name": "bad"},
        {"name": "long", "num_inference_steps": 200},
        {"name": "a"},
        {"name": "b"},
    )
    source = listed(jobs=[*names, {"name": "wrong", "num_frames": 99}])
    folder = source.with_suffix(".batch")
    told, code, errors = watched(source, stopped_at="long.mp4")
    assert code == 130 and "go on with:  hgc-video batch" in errors
    assert told[0] == {"event": "added", "new": 5, "done": 0, "waiting": 0, "changed": 0}
    started = [event["name"] for event in told if event["event"] == "started"]
    assert started == ["bad.mp4", "long.mp4"]
    (died,) = (event for event in told if event["event"] == "died")
    assert died["state"] == "queued" and "ended by SIGKILL" in died["why"]
    counts = told[-1]["counts"]
    assert (counts["queued"], counts["running"], counts["set aside"]) == (5, 0, 0)

    assert invoke("batch", source, "--cancel", 2).exit_code == 0
    told, code, errors = watched(source)
    assert code == 1 and "2 jobs have no result" in errors, errors
    started = [event["name"] for event in told if event["event"] == "started"]
    assert started == ["a.mp4", "b.mp4", "wrong.mp4", "bad.mp4"]
    (died,) = (event for event in told if event["event"] == "died")
    assert died["state"] == "set aside"
    done = {event["name"]: event for event in told if event["event"] == "done"}
    assert set(done) == {"a.mp4", "b.mp4"} == {path.name for path in folder.glob("*.mp4")}
    assert [event["loaded"] for event in done.values()] == [True, False]
    counts, lost = told[-1]["counts"], told[-1]["lost"]
    assert (counts["done"], counts["cancelled"]) == (2, 1)
    assert [job["name"] for job in lost] == ["bad.mp4", "wrong.mp4"]
    assert "num_frames=99 is beyond the clip" in lost[1]["why"]

    own = folder / "own.mp4"
    hgc_video.generate(
        tmp_path / "pose.mp4", PROMPT, num_frames=1, num_inference_steps=1, out=own, progress=False
    )
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert {event["digest"] for event in done.values()} == {digest}


@pytest.mark.parametrize("wrong", ["--workers=0", "--engine=slurm", "--wait-s=-1"])
def test_how_a_batch_works_is_looked_at_before_its_jobs_are_put_down(listed, wrong):
    source = listed(jobs=[{"name": "a"}])
    refused = invoke("batch", source, wrong)
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert not source.with_suffix(".batch").exists()


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
    assert "cancelled    2  b.mp4" in invoke("batch", source, "--status").stdout
    for wrong, says in ((9, "there is no job 9"), (1, "job 1 is queued")):
        refused = invoke("batch", source, "--retry", 2, "--retry", wrong)
        assert refused.exit_code == 2 and says in refused.stderr
    queue = Queue(folder)
    assert [row["state"] for row in rows_of(queue)] == ["queued", "cancelled"]
    queue.retry([2])
    assert [row["state"] for row in rows_of(queue)] == ["queued", "queued"]
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

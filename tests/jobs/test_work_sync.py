"""The work of a run at a URL: there when it begins anew elsewhere, marks of completeness last."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from hgc_video.errors import HGCVideoWarning, InputError
from hgc_video.jobs.engines import work_sync
from hgc_video.jobs.engines.work_sync import remove_work, work_at
from hgc_video.jobs.task import Task
from hgc_video.jobs.worker import Worker


def test_a_plain_folder_is_used_as_it_is(tmp_path):
    with work_at(str(tmp_path / "a" / "b")) as folder:
        assert folder == tmp_path / "a" / "b" and folder.is_dir()
    remove_work(str(tmp_path / "a" / "b"))
    assert not folder.exists()
    with work_at("") as own:
        assert own.is_dir() and own != folder
    assert not own.exists()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_work_goes_on_elsewhere(tmp_path, scheme):
    url = f"{scheme}://{tmp_path}/work" if scheme == "file" else "memory://work"
    with work_at(url) as here:
        (here / "steps").mkdir()
        (here / "steps" / "3.safetensors").write_text("latents")
        (here / "old").write_text("x")
        (here / "gone").mkdir()
        (here / "gone" / "a").write_text("x")
        (here / "gone" / "b").write_text("x")
    assert not here.exists()
    with work_at(url) as there:
        assert (there / "steps" / "3.safetensors").read_text() == "latents"
        (there / "old").unlink()
        shutil.rmtree(there / "gone")
        (there / "steps" / "3.safetensors").write_text("latents of step 5")
    if scheme == "file":
        assert {path.name for path in (tmp_path / "work").iterdir()} == {"steps"}
    with work_at(url) as again:
        assert {p.name for p in again.rglob("*") if p.is_file()} == {"3.safetensors"}
        assert (again / "steps" / "3.safetensors").read_text() == "latents of step 5"
    remove_work(url)
    remove_work(url)
    with work_at(url) as empty:
        assert not list(empty.iterdir())


def test_work_is_copied_while_a_run_is_at_it_and_when_it_fails(tmp_path):
    place = tmp_path / "work"
    with pytest.raises(RuntimeError), work_at(f"file://{place}", every_s=0.01) as here:
        (here / "a").write_text("1")
        deadline = time.monotonic() + 30
        while not (place / "a").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (place / "a").read_text() == "1"
        (here / "b").write_text("2")
        raise RuntimeError("the run ends")
    assert (place / "b").read_text() == "2"
    assert threading.active_count() < 20


def test_what_is_written_last_arrives_last(tmp_path, monkeypatch):
    arrived = []
    copied = work_sync._Copied._copy

    def note(self, path, inner):
        arrived.append(inner)
        return copied(self, path, inner)

    monkeypatch.setattr(work_sync._Copied, "_copy", note)
    with work_at(f"file://{tmp_path / 'work'}", every_s=60) as here:
        for name in ("z.safetensors", "m.json", "a.complete"):
            (here / name).write_text(name)
            time.sleep(0.01)
    assert arrived == ["z.safetensors", "m.json", "a.complete"]


def test_what_is_not_complete_or_gone_meanwhile_is_not_copied(tmp_path):
    place = tmp_path / "work"
    with work_at(f"file://{place}", every_s=60) as here:
        (here / ".tensors.part").write_text("half")
        (here / ".checkpoint.part").mkdir()
        (here / ".checkpoint.part" / "state.json").write_text("half")
        (here / "job.json").write_text("{}")
        copied = work_sync._Copied(f"file://{place}", here)
        assert not copied._copy(here / "gone", "gone")
    assert [path.name for path in place.iterdir()] == ["job.json"]


def test_a_place_that_cannot_be_written_costs_no_run(tmp_path):
    (tmp_path / "work").write_text("a file where a folder is needed")
    told = pytest.warns(HGCVideoWarning, match="what resumes this run cannot be copied")
    with told, work_at(f"file://{tmp_path / 'work' / 'a'}", every_s=0.01) as here:
        (here / "a").write_text("1")
        time.sleep(0.1)


def test_a_password_in_an_address_is_not_told(tmp_path):
    """Warnings are kept in the queue and shown on the page."""
    (tmp_path / "work").write_text("a file where a folder is needed")
    copied = work_sync._Copied(f"file://{tmp_path / 'work' / 'a'}", tmp_path)
    with pytest.warns(HGCVideoWarning) as told:
        work_sync._push_at_the_end(copied, "sftp://ann:secret@host/work")
    assert "secret" not in str(told[0].message) and "sftp://host/work" in str(told[0].message)


DIES = """
import json, os, signal, sys, time
from pathlib import Path
from hgc_video.jobs.task import Task
from hgc_video.jobs.worker import Worker

task, place = Task(**json.loads(sys.argv[1])), Path(sys.argv[2])

def on_step(step, steps):
    deadline = time.monotonic() + 60
    while step == 3 and time.monotonic() < deadline:
        if (place / "checkpoint-000002" / "COMPLETE").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)

Worker("cpu").make(task, on_step)
"""


@pytest.mark.slow
def test_a_worker_goes_on_where_another_one_died(tiny, tmp_path):
    """Through a URL: of the run of a process that was killed, the steps after its checkpoint are made."""
    options = {
        **tiny,
        "num_inference_steps": 4,
        "checkpoint_every_s": 0.0,
        "height": 64,
        "width": 64,
    }
    options["control"] = {"pose": str(tmp_path / "pose.mp4")}
    place = tmp_path / "storage" / "job"
    first = {
        "name": "a",
        "options": options,
        "part": str(tmp_path / "a.mp4"),
        "work": f"file://{place}",
    }
    command = [sys.executable, "-c", DIES, json.dumps(first), str(place)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    steps, worker = [], Worker("cpu")
    outcome = worker.make(Task(**first), lambda step, of: steps.append(step))
    assert outcome.state == "done" and steps in ([3, 4], [4])
    whole = Task("a", options, str(tmp_path / "b.mp4"), "")
    assert worker.make(whole, lambda *_: None).result.digest == outcome.result.digest


def test_a_place_that_cannot_be_made_is_told_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "work")
    with pytest.raises(InputError, match=r"cannot write .*file/work"), work_at(place):
        pass

"""What is asked of a batch: its engine and workers, where runs leave their work, and which jobs it has.

Its queue is let go of whatever happens. No process is begun.
"""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
import yaml

from hgc_video.errors import HGCVideoError, InputError, collected_warnings
from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import Added
from hgc_video.jobs.batch import ENGINES, EngineChoice, add_to, listed_jobs, work_off
from hgc_video.jobs.drive import Stop
from hgc_video.jobs.engines.local import LocalEngine
from hgc_video.jobs.engines.ray_cluster import RayEngine
from hgc_video.jobs.job_list import JobList
from hgc_video.jobs.queue import Queue

from .hand_engine import DONE, HandEngine
from .queue_parts import states


@pytest.fixture
def source(tmp_path, tiny):
    """Writes a list of jobs and gives its path."""

    def write(*names, **told):
        jobs = [name if isinstance(name, dict) else {"name": name} for name in names]
        (tmp_path / "jobs.yaml").write_text(
            yaml.safe_dump({"defaults": tiny, "jobs": jobs, **told})
        )
        return tmp_path / "jobs.yaml"

    return write


def asked(source, **more):
    return listed_jobs(
        source, **{"seeds": None, "matrix": {}, "pattern": None, "allow_outside": False, **more}
    )


def names(listed):
    return [job.name for job in listed.jobs()]


def test_by_itself_a_batch_is_made_here_on_every_device():
    choice = EngineChoice()
    assert choice == EngineChoice("local", None, (), "auto", None, 3600)
    assert EngineChoice("ray", 3, ("cpu",), "host:1", "s3://b", 5).storage == "s3://b"
    with pytest.raises(FrozenInstanceError):
        choice.workers = 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "slurm"}, 'unknown engine "slurm"; take local or ray'),
        ({"workers": 0}, "workers=0 is not possible; give 1 or more"),
        ({"workers": 1.0}, "workers=1.0 is not possible; give 1 or more"),
        ({"wait_s": -1}, "wait_s=-1 is not possible; give 0 or more"),
    ],
)
def test_a_choice_that_is_not_possible_is_refused(wrong, says):
    with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
        EngineChoice(**wrong)
    assert ENGINES == ("local", "ray")
    assert EngineChoice(workers=1, wait_s=0).workers == 1
    assert EngineChoice("ray").name == "ray"


def test_the_engine_of_this_machine_has_a_slot_for_every_worker(tmp_path, monkeypatch):
    made = EngineChoice(workers=2, devices=("cpu", "cuda:1")).make(tmp_path)
    assert isinstance(made, LocalEngine) and made.is_empty()
    assert made._devices == {
        "0-cpu": "cpu",
        "1-cuda:1": "cuda:1",
        "2-cpu": "cpu",
        "3-cuda:1": "cuda:1",
    }
    assert made._logs == tmp_path / "logs" and not made._logs.exists()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert list(EngineChoice().make(tmp_path)._devices.values()) == ["cuda:0", "cuda:1"]


def test_the_engine_of_a_cluster_is_told_where_that_is(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    made = EngineChoice("ray", 3, address="host:10001").make(tmp_path)
    assert isinstance(made, RayEngine) and (made._address, made._wanted) == ("host:10001", 3)
    assert EngineChoice("ray").make(tmp_path)._wanted is None


def test_runs_leave_their_work_where_they_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder, local, ray = Path("b"), EngineChoice(), EngineChoice("ray")
    assert local.work(folder) == str(tmp_path / "b" / "work")
    assert ray.work(folder) == "", "its machines may not reach this folder"
    for choice in (local, ray):
        for storage, place in (
            ("s3://bucket/a", "s3://bucket/a"), ("shared", str(tmp_path / "shared")),
            ("/shared", "/shared"), ("~/shared", str(tmp_path / "home" / "shared")),
        ):  # fmt: skip
            assert replace(choice, storage=storage).work(folder) == place


def test_jobs_are_those_of_their_source_unless_more_is_asked(source):
    path = source(
        "a", "b", seeds=2, matrix={"preset": ["off", "fast"]}, name="{name}-{seed}-{preset}"
    )
    listed = asked(path)
    assert (listed.seeds, listed.pattern) == (2, "{name}-{seed}-{preset}")
    assert listed.matrix == {"preset": ["off", "fast"]}
    assert [shot.name for shot in listed.shots] == ["a", "b"]
    more = asked(
        path, seeds=1, pattern="{number}", matrix={"num_frames": [1, 2], "preset": ["off"]}
    )
    assert (more.seeds, more.pattern) == (1, "{number}") and more.shots == listed.shots
    assert more.matrix == {"preset": ["off"], "num_frames": [1, 2]}
    assert list(more.matrix) == ["preset", "num_frames"]
    assert names(more) == ["1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert asked(path, pattern="").pattern == "{name}-{seed}-{preset}"
    with pytest.raises(InputError, match="seeds=0"):
        names(asked(path, seeds=0))


def test_a_file_that_a_shot_names_for_its_clip_is_not_used_and_this_is_said(source):
    with collected_warnings() as said:
        asked(source("a", "b"))
    assert said == []
    for count, told in ((1, "a"), (3, "a, b, c"), (4, "a, b, c, ..."), (5, "a, b, c, ...")):
        jobs = [{"name": name, "out": f"{name}.gif"} for name in "abcde"[:count]]
        with collected_warnings() as said:
            listed = asked(source({"name": "plain"}, *jobs))
        assert said == [
            f'"out" is not used ({told}): results of a batch are named by a pattern, see --name'
        ]
        assert names(listed)[:2] == ["plain.mp4", "a.mp4"]


def test_inputs_that_lie_elsewhere_are_read_where_that_is_allowed(source, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = source("a")
    (inside / "jobs.yaml").write_text(path.read_text().replace("pose.mp4", "../pose.mp4"))
    with pytest.raises(InputError, match="outside"):
        asked(inside / "jobs.yaml")
    assert names(asked(inside / "jobs.yaml", allow_outside=True)) == ["a.mp4"]


def opened(monkeypatch):
    """The queues that are made, with whether each is closed."""
    found = {}
    made, closed = Queue.__init__, Queue.close

    def init(self, *given, **more):
        made(self, *given, **more)
        found[self] = False

    def close(self):
        closed(self)
        found[self] = True

    monkeypatch.setattr(Queue, "__init__", init)
    monkeypatch.setattr(Queue, "close", close)
    return found


def in_queue(folder):
    queue = Queue(folder)
    try:
        return states(queue)
    finally:
        queue.close()


def test_jobs_are_put_into_the_queue_of_a_folder_once(source, tmp_path, monkeypatch):
    listed, folder, queues = asked(source("a", "b")), tmp_path / "batch", opened(monkeypatch)
    assert add_to(folder, listed) == Added(2, 0, 0, 0)
    assert add_to(folder, listed) == Added(0, 0, 2, 0)
    assert list(queues.values()) == [True, True]
    assert in_queue(folder) == {"a.mp4": "queued", "b.mp4": "queued"}


def test_where_one_job_is_not_possible_there_is_no_queue(source, tmp_path, monkeypatch):
    queues, folder = opened(monkeypatch), tmp_path / "batch"
    with pytest.raises(InputError, match="num_frames"):
        add_to(folder, asked(source("a", {"name": "b", "num_frames": 0})))
    assert not queues and not folder.exists()


def test_a_queue_is_let_go_of_where_jobs_cannot_be_added(source, tmp_path, monkeypatch):
    queues, folder = opened(monkeypatch), tmp_path / "batch"
    add_to(folder, asked(source("a")))
    queue = Queue(folder)
    queue.claim("w")
    queue.close()
    with pytest.raises(InputError, match="is running with other options"):
        add_to(folder, asked(source({"name": "a", "seed": 5})))
    assert list(queues.values()) == [True] * 3


def test_a_folder_that_holds_somebody_elses_clip_is_left_as_it_is(source, tmp_path):
    folder = tmp_path / "batch"
    folder.mkdir()
    (folder / "b.mp4").write_text("the user's own")
    with pytest.raises(InputError, match=r"b\.mp4. is there and no result of this batch; move it"):
        add_to(folder, asked(source("a", "b")))
    assert [path.name for path in folder.iterdir()] == ["b.mp4"]


def test_jobs_are_made_by_the_engine_of_the_choice(source, tmp_path, monkeypatch):
    monkeypatch.setattr(drive_module, "BEAT_S", 0.0)
    folder, engine, told, queues = (
        tmp_path / "batch",
        HandEngine(DONE, DONE),
        [],
        opened(monkeypatch),
    )
    add_to(folder, asked(source("a", "b")))
    seen = []

    def make(self, where):
        seen.append((self, where))
        return engine

    monkeypatch.setattr(EngineChoice, "make", make)
    choice = EngineChoice(storage=str(tmp_path / "kept"))
    work_off(folder, choice, told.append, Stop())
    assert seen == [(choice, folder)] and engine.closed
    assert [event["name"] for event in told if event["event"] == "done"] == ["a.mp4", "b.mp4"]
    assert {str(Path(task.work).parent) for task in engine.given} == {str(tmp_path / "kept")}
    assert list(queues.values()) == [True, True]
    assert in_queue(folder) == {"a.mp4": "done", "b.mp4": "done"}


def test_a_batch_that_is_to_stop_makes_nothing(source, tmp_path, monkeypatch):
    folder, engine, told = tmp_path / "batch", HandEngine(), []
    add_to(folder, asked(source("a")))
    monkeypatch.setattr(EngineChoice, "make", lambda self, where: engine)
    stop = Stop()
    stop.asked = True
    work_off(folder, EngineChoice(), told.append, stop)
    assert engine.given == [] and in_queue(folder) == {"a.mp4": "queued"}


def test_how_long_a_batch_waits_for_its_queue_is_the_choices(source, tmp_path, monkeypatch):
    """A queue whose disk is full is waited for; not at all, where the choice says so."""
    folder, told, queues = tmp_path / "batch", [], opened(monkeypatch)
    add_to(folder, asked(source("a")))
    monkeypatch.setattr(EngineChoice, "make", lambda self, where: HandEngine())

    def full(self, *given):
        raise HGCVideoError("x") from OSError(28, "No space left on device")

    monkeypatch.setattr(Queue, "claim", full)
    with pytest.raises(HGCVideoError, match=r"^x$"):
        work_off(folder, EngineChoice(wait_s=0), told.append, Stop())
    assert not [event for event in told if event["event"] == "queue waits"]
    assert list(queues.values()) == [True, True], "let go of after an error too"


def test_a_list_of_no_jobs_adds_none(tmp_path):
    assert add_to(tmp_path / "batch", JobList(())) == Added(0, 0, 0, 0)

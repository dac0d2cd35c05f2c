"""A batch on a real Ray cluster of two machines, both of them here: a head, and a node that joins it."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from hgc_video.errors import HGCVideoError, InputError
from hgc_video.files import sha256_of
from hgc_video.jobs.batch import EngineChoice, add_to, listed_jobs, work_off
from hgc_video.jobs.drive import Stop
from hgc_video.jobs.engines import ray_cluster
from hgc_video.jobs.engines.inputs import read_carried
from hgc_video.jobs.engines.ray_actor import RayActor
from hgc_video.jobs.task import Step, Task
from hgc_video.sampling.configuration import read_configuration
from tests.local_ray import local_cluster

from .conftest import ROOT

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
CLUSTERS = ROOT / "configs" / "clusters"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster of a head and a node, each with two CPUs."""
    with local_cluster(tmp_path_factory.mktemp("ray")) as started:
        yield started.address


@pytest.mark.slow
def test_a_batch_on_a_cluster_whose_actor_is_killed(cluster, tiny, tmp_path):
    """Its job is made again on another one; each result is there once; the model is loaded once an actor."""
    told = {"defaults": tiny, "jobs": [{"name": "a"}], "seeds": 3}
    (tmp_path / "jobs.yaml").write_text(json.dumps(told))
    folder, events, killed = tmp_path / "jobs.batch", [], []
    jobs = listed_jobs(
        tmp_path / "jobs.yaml", seeds=None, matrix={}, pattern=None, allow_outside=False
    )
    add_to(folder, jobs)

    def watch(event):
        events.append(event)
        if event["event"] == "started" and not killed:
            killed.append(event["job"])
            (where,) = [
                e["where"] for e in events if e["event"] == "ready" and e["slot"] == event["slot"]
            ]
            os.kill(int(where.rpartition(":")[2]), signal.SIGKILL)

    storage = f"file://{tmp_path / 'storage'}"
    work_off(folder, EngineChoice("ray", None, (), cluster, storage), watch, Stop())
    (died,) = [event for event in events if event["event"] == "died"]
    assert died["job"] == killed[0] and died["state"] == "queued" and "actor" in died["why"]
    done = {event["name"]: event for event in events if event["event"] == "done"}
    assert len(done) == 3 == len([event for event in events if event["event"] == "done"])
    assert set(done) == {path.name for path in folder.glob("*.mp4")}
    assert all(sha256_of(folder / name) == event["digest"] for name, event in done.items())
    for name in done:  # as seen from the clip, though it was made in an actor's own folder
        told = read_configuration(folder / name)["files"]["control.pose"]["name"]
        assert (folder / told).resolve() == (tmp_path / "pose.mp4").resolve()
    actors = {event["where"] for event in events if event["event"] == "ready"}
    assert len(actors) == 3, "one for each machine, and one for the one that was killed"
    assert sum(event["loaded"] for event in done.values()) <= 2
    assert not list(folder.glob(".*part-*")) and not ray.is_initialized()
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def told_by(engine):
    """The next thing that an engine tells, but for steps."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := [event for event in engine.events(0.2) if not isinstance(event, Step)]:
            return found
    raise AssertionError("nothing was told")


@pytest.mark.slow
def test_a_disk_that_fails_ends_a_task_and_neither_an_actor_nor_the_batch(
    cluster, tiny, tmp_path, monkeypatch
):
    """The batch's own, which it reads inputs from and writes clips to, and that of an actor."""
    out = tmp_path / "out" / "a.mp4"
    engine = EngineChoice("ray", 1, address=cluster).make(tmp_path)
    engine.start()
    try:
        (ready,) = told_by(engine)
        path = str(tmp_path / "pose.mp4")
        task = Task("a", {**tiny, "control": {"pose": path}}, str(out), "")

        def fails(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(ray_cluster, "read_carried", fails)
            engine.give(ready.slot, task)
        (ended,) = told_by(engine)
        assert (ended.slot, ended.outcome.passing) == (ready.slot, True)
        assert "pose.mp4" in ended.outcome.why and "input/output error" in ended.outcome.why

        engine.give(ready.slot, task)
        (ended,) = told_by(engine)
        assert ended.outcome.state == "failed" and "FileNotFoundError" in ended.outcome.why
        out.parent.mkdir()
        engine.give(ready.slot, task)
        (ended,) = told_by(engine)
        assert ended.outcome.state == "done" and not ended.outcome.loaded, "it is the same actor"
        assert sha256_of(out) == ended.outcome.result.digest

        carried = {path: ray.put(read_carried(Path(path)))}
        Path(path).unlink()
        actor = RayActor()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", lambda self, data: fails(self))
            outcome, clip = actor.make(task, carried)
        assert (outcome.state, outcome.passing, clip) == ("failed", True, b"")
        assert "cannot write" in outcome.why

        engine.give(ready.slot, task)  # an input that is gone is no fault of a disk
        (ended,) = told_by(engine)
        assert ended.outcome.state == "failed" and not ended.outcome.passing
        assert "pose.mp4" in ended.outcome.why
    finally:
        engine.close()


@pytest.mark.slow
def test_inputs_are_carried_once_and_anew_when_they_change(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_MOST_CARRIED", 2)
    engine = EngineChoice("ray", 1, address=cluster).make(tmp_path)
    (frames := tmp_path / "frames").mkdir()
    (frames / "0.png").write_text("one")
    ray.init(address=cluster, log_to_driver=False, logging_level="WARNING")
    try:
        first = engine._carry(frames)
        assert engine._carry(frames) == first
        (frames / "0.png").write_text("two")  # the folder's own time of change stays
        second = engine._carry(frames)
        assert second != first and ray.get(second).files == {"0.png": b"two"}
        for name in ("a", "b"):
            (tmp_path / name).write_text(name)
            engine._carry(tmp_path / name)
        assert len(engine._carried) == 2 and engine._carry(frames) != second
        assert engine._carry_all([str(tmp_path / "gone"), str(tmp_path / "b")]).keys() == {
            str(tmp_path / "b")
        }
    finally:
        ray.shutdown()


def test_what_cannot_be_is_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match="workers=0"):
        EngineChoice("ray", 0).make(tmp_path)
    with pytest.raises(HGCVideoError, match='unknown engine "slurm"'):
        EngineChoice("slurm").make(tmp_path)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "somewhere"):
        engine = EngineChoice("ray", 1, address=address).make(tmp_path)
        with pytest.raises(InputError, match=rf'no Ray cluster at "{address}"'):
            engine.start()


def test_the_example_of_a_cluster_is_one_that_ray_takes():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    told = yaml.safe_load((CLUSTERS / "ray-aws.yaml").read_text())
    jsonschema.validate(told, schema)
    types = told["available_node_types"]
    assert told["head_node_type"] in types and len(types) == 2
    for start in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("ray start" in line for line in told[start])
    (task,) = yaml.safe_load_all((CLUSTERS / "skypilot.yaml").read_text())
    assert "hgc-video batch" in task["run"] and task["num_nodes"] >= 2

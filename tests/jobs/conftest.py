"""What the tests of jobs share: a small control clip, options whose run takes seconds, a queue, a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgc_video.jobs import drive as drive_module
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.queue import Queue
from hgc_video.media.video import read_frames, write_video

from .queue_parts import Clock

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a dancer in a red shirt and blue trousers on a beach"


@pytest.fixture(scope="session")
def pose_clip(tmp_path_factory):
    """The first frames of the example, as a control clip of 4 frames."""
    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(4))
    return write_video(tmp_path_factory.mktemp("clips") / "pose.mp4", frames, 8)


@pytest.fixture
def tiny(tmp_path, pose_clip):
    """A folder with pose.mp4, and the options of the smallest run of it."""
    (tmp_path / "pose.mp4").write_bytes(pose_clip.read_bytes())
    return {
        "control": {"pose": "pose.mp4"}, "prompt": PROMPT, "num_frames": 1, "num_inference_steps": 1,
    }  # fmt: skip


@pytest.fixture
def work(tmp_path):
    """A work folder that is taken."""
    folder = WorkFolder(tmp_path / "work")
    folder.open()
    yield folder
    folder.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    made = Queue(tmp_path / "b", clock=clock, steady=clock)
    yield made
    made.close()


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Runs jobs a, b, ... under a script and gives what was told, states and names of files."""
    monkeypatch.setattr(drive_module, "BEAT_S", 0.0)
    queue = Queue(tmp_path / "b")

    def run(engine, *names, stop=None, seen=None):
        add_jobs(queue, [NewJob(f"{name}.mp4", {}, name, "m") for name in names])
        told = []
        tell = seen or told.append
        Drive(queue, engine, tell, storage=str(tmp_path / "work")).run(stop or Stop())
        states = dict(queue.table.execute("SELECT name, state FROM jobs").fetchall())
        assert engine.closed and not list(queue.folder.glob(".*part-*"))
        return [
            (e["event"], e["name"][:1]) for e in told if "name" in e and e["event"] != "step"
        ], states

    run.queue = queue
    yield run
    queue.close()

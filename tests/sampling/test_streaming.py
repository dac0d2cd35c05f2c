"""Clips written while they are decoded: the same frames, and never all of them in memory."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch

import hgc_video
from hgc_video.clip import Clip
from hgc_video.errors import InputError, VideoError
from hgc_video.evaluate.samples import Sample
from hgc_video.evaluate.trials import Trial
from hgc_video.media.frames import LazyFrames, collect_frames
from hgc_video.media.video import read_frames, write_video
from hgc_video.models.load import load_pipeline
from hgc_video.puppet.evaluation import held_out
from tests.puppet_latents import CHANNELS

PROMPT = "a dancer in a red shirt on a beach"


@pytest.fixture(scope="module")
def pose():
    return held_out(6, 5).truth.pose


def run(pose, **options):
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "progress": False, **options}
    return hgc_video.generate(pose, PROMPT, **options)


def test_what_is_written_is_what_would_have_been_kept(pose, tmp_path):
    kept, folder, movie = run(pose), tmp_path / "clip", tmp_path / "clip.mp4"
    written = run(pose, out=folder)
    assert np.array_equal(read_frames(folder), kept.frames)
    assert isinstance(written.frames, LazyFrames) and written.num_frames == 5
    assert np.array_equal(written.frames, kept.frames)
    assert np.array_equal(written.frames[2:4], kept.frames[2:4])
    run(pose, out=movie)
    kept.save(tmp_path / "kept.mp4")
    assert movie.read_bytes() == (tmp_path / "kept.mp4").read_bytes()
    assert written.save(tmp_path / "again").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "clip", "clip.mp4", "kept.mp4"]


def test_a_control_clip_is_read_window_by_window_with_the_same_result(pose, tmp_path, monkeypatch):
    folder = write_video(tmp_path / "pose", np.concatenate([pose, pose[::-1]]), 8)
    options = {"num_frames": 10, "context_length": 4, "num_inference_steps": 2, "preset": "off"}
    held = run(str(folder), **options)
    monkeypatch.setattr("hgc_video.media.control.HELD_NBYTES", 0)
    read = run(str(folder), **options)
    assert isinstance(held.control, np.ndarray) and isinstance(read.control, LazyFrames)
    assert np.array_equal(held.frames, read.frames)
    assert np.array_equal(held.control, read.control)


def test_a_run_that_ends_early_leaves_nothing_and_an_older_clip_whole(pose, tmp_path):
    target = tmp_path / "clip.mp4"
    target.write_text("older")
    with pytest.raises(hgc_video.errors.Cancelled):
        run(pose, out=target, callback=lambda *_: False)
    assert target.read_text() == "older" and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(pose, tmp_path):
    def never(*_):
        raise AssertionError("it ran")

    with pytest.raises(VideoError, match="create it first"):
        run(pose, out=tmp_path / "missing" / "clip.mp4", callback=never)
    control = write_video(tmp_path / "pose", pose, 8)
    with pytest.raises(InputError, match="the control clip itself"):
        run(control, out=control, callback=never)


@pytest.fixture(scope="module")
def trial(pose):
    pipe = load_pipeline("puppet", "pose")
    return Trial(pipe, "puppet", Sample(pose, "pose", PROMPT, 0), 5, 2)


def held_nbytes(trial, num_frames, consume):
    """The most bytes of arrays that were alive at once, looked at whenever a chunk is asked for and at the
    end: what a busy machine delays, and what Python itself allocates meanwhile, does not count."""
    latents = torch.randn(1, CHANNELS, num_frames, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []

    def arrays():
        gc.collect()
        traces = tracemalloc.take_snapshot().traces
        return sum(t.size for t in traces if t.domain == np.lib.tracemalloc_domain)

    def watched():
        for chunk in trial._run.decoded(latents):
            own = np.array(chunk)  # numpy's own memory, which is traced; torch's is not
            del chunk
            found.append(arrays())
            yield own
            del own

    tracemalloc.start()
    try:
        result = consume(watched())
        found.append(arrays())
        del result
    finally:
        tracemalloc.stop()
    assert len(found) == -(-num_frames // 16) + 1
    return max(found)


def test_memory_does_not_grow_with_the_frames_that_are_written(trial, tmp_path):
    """16 frames more of 64x64 are 0.2 MB, which gathering them takes and writing them does not."""

    def write(chunks):
        return write_video(tmp_path / "clip", (frame for chunk in chunks for frame in chunk), 8)

    def gather(num_frames):
        return lambda chunks: collect_frames(chunks, num_frames, 64, 64)

    frame = 64 * 64 * 3
    few, many = (held_nbytes(trial, n, write) for n in (32, 48))
    # A chunk of 16 that is decoded, its copy made here, and the one before it, which is just written.
    assert few == pytest.approx(48 * frame, abs=frame)
    assert abs(many - few) < frame
    few, many = (held_nbytes(trial, n, gather(n)) for n in (32, 48))
    assert many - few == pytest.approx(16 * frame, abs=frame)
    assert len(read_frames(tmp_path / "clip")) == 48


def test_a_clip_of_a_file_shows_and_saves_itself(report, tmp_path):
    shape = (3, 32, 32, 3)
    frames = LazyFrames(
        lambda start: iter(np.zeros(shape, np.uint8)[start:]), *shape[:3], hold=False
    )
    clip = Clip(frames=frames, fps=8, report=report)
    assert (clip.num_frames, clip.height, clip.width) == (3, 32, 32)
    assert "<video" in clip._repr_html_()

"""What a task reads, on another machine: the same file where it lies there too, a copy elsewhere."""

from __future__ import annotations

from pathlib import Path

from hgc_video.jobs.engines.inputs import input_paths, read_carried, with_files_here


def test_files_come_along(tmp_path):
    clip, frames, schedule = tmp_path / "a.mp4", tmp_path / "frames", tmp_path / "s.yaml"
    clip.write_text("clip")
    schedule.write_text("codes")
    frames.mkdir()
    for name in ("0.png", "1.png"):
        (frames / name).write_text(name)
    options = {
        "control": {"pose": str(clip), "depth": str(frames)}, "image": str(tmp_path / "gone.png"),
        "preset": f"searched:file={schedule}+lossless", "prompt": str(clip), "model": "puppet",
    }  # fmt: skip
    paths = input_paths(options)
    assert paths == [str(clip), str(frames), str(schedule)]
    carried = {path: read_carried(Path(path)) for path in paths}
    there = tmp_path / "there"
    assert with_files_here(options, there, carried.get) == options, "all of it lies here too"
    assert not there.exists()

    clip.write_text("another clip of this name")
    (frames / "1.png").unlink()
    schedule.unlink()
    moved = with_files_here(options, there, carried.get)
    assert moved["prompt"] == str(clip) and moved["image"] == options["image"]
    assert Path(moved["control"]["pose"]).read_text() == "clip"
    assert Path(moved["control"]["pose"]).name == "a.mp4"
    assert sorted(p.name for p in Path(moved["control"]["depth"]).iterdir()) == ["0.png", "1.png"]
    copied = moved["preset"].removeprefix("searched:file=").removesuffix("+lossless")
    assert Path(copied).read_text() == "codes"
    assert with_files_here(options, there, carried.get) == moved, "and is written once"

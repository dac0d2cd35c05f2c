"""The commands that are cut off: what lies there before, the command, and the one that goes on with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import parts

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a dancer in a red shirt and blue trousers on a beach"
Work = Callable[[], None]
# In a folder: the arguments of hgc-video, or what is done instead.
Command = Callable[[Path], "list[str] | Work"]
Run = Callable[[list[str]], None]
InFolder = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One command in a folder that holds pose.mp4; all that it makes goes to the folder `made` in it, and
    what the package keeps to `home`. `prepare` runs what must have been run before."""

    name: str
    command: Command
    again: Command
    prepare: Callable[[Path, Run], None] = lambda folder, run: None
    fails: bool = False  # answers 1 where what it is to make cannot be made
    whole: bool = True  # a command of ours, which needs the models


def _options(folder: Path, steps: int = 3) -> list[str]:
    return [
        "--pose", str(folder / "pose.mp4"), "--prompt", PROMPT, "--num-frames", "2",
        "--num-inference-steps", str(steps), "--height", "64", "--width", "64", "--seed", "3",
        "--preset", "deepcache:interval=2", "--quiet",
    ]  # fmt: skip


def _generate(folder: Path) -> list[str]:
    out = ["--out", str(folder / "made/clip.mp4"), "--report", str(folder / "made/report.json")]
    return ["generate", *_options(folder), *out]


def _generate_kept(folder: Path) -> list[str]:
    return [*_generate(folder), "--work", str(folder / "made/work"), "--checkpoint-every-s", "0"]


def _generate_folder(folder: Path) -> list[str]:
    return ["generate", *_options(folder, 1), "--out", str(folder / "made/clip")]


def _older_folder(folder: Path, run: Run) -> None:
    """Three frames of another seed lie where the two are to lie."""
    options = _options(folder, 1)
    options[options.index("--num-frames") + 1] = "3"
    options[options.index("--seed") + 1] = "4"
    run(["generate", *options, "--out", str(folder / "made/clip")])


def _resume(folder: Path) -> list[str]:
    return [
        "resume",
        str(folder / "made/work"),
        "--quiet",
        "--report",
        str(folder / "made/report.json"),
    ]


def _begun(folder: Path, run: Run) -> None:
    """A run that was kept after two of its steps, and stopped."""
    from hgc_video import generate
    from hgc_video.errors import Cancelled

    try:
        generate(
            control={"pose": folder / "pose.mp4"}, prompt=PROMPT, num_frames=2, num_inference_steps=4,
            height=64, width=64, seed=3, preset="deepcache:interval=2", out=folder / "made/clip.mp4",
            work=folder / "made/work", checkpoint_every_s=1e-9, progress=False,
            callback=lambda step, steps, latents: step < 1,
        )  # fmt: skip
    except Cancelled:
        return
    raise RuntimeError("the run was to stop")


def _shot(folder: Path, run: Run) -> None:
    shot = {
        "control": {"pose": "pose.mp4"}, "prompt": PROMPT, "num_frames": 2, "num_inference_steps": 2,
        "height": 64, "width": 64, "seed": 3, "preset": "lossless",
    }  # fmt: skip
    (folder / "shot.json").write_text(json.dumps(shot))


def _shot_with_older_clip(folder: Path, run: Run) -> None:
    _shot(folder, run)
    older = [*_run_shot(folder), "--set", "seed=4"]
    run(older)


def _run_shot(folder: Path) -> list[str]:
    return ["run", str(folder / "shot.json"), "--out", str(folder / "made/clip.mp4")]


def _batch(folder: Path) -> list[str]:
    # Where the disk stays full or away the batch ends; it would wait for an hour.
    place = ["--folder", str(folder / "made/batch"), "--workers", "1", "--wait-s", "0"]
    return ["batch", str(folder / "shot.json"), "--seeds", "2", *place]


def _batch_again(folder: Path) -> list[str]:
    return [
        *_batch(folder),
        "--retry-failed",
    ]  # a job that a fault has ended is tried again when asked


def _extract(folder: Path) -> list[str]:
    return ["extract", "canny", str(folder / "pose.mp4"), str(folder / "made/canny.mp4"), "--quiet"]


def _crowded(folder: Path, run: Run) -> None:
    """Another extraction is kept already, and there is room for one alone."""
    run([
        "extract", "canny:low=40", str(folder / "pose.mp4"), str(folder / "older.mp4"), "--quiet",
    ])  # fmt: skip
    (folder / "home/extracted/limit.txt").write_text("2000\n")


def _calibrate(folder: Path) -> list[str]:
    size = ["--count", "2", "--num-frames", "1", "--num-inference-steps", "2"]
    place = ["--out", str(folder / "made/calibration.yaml"), "--folder", str(folder / "made/kept")]
    return ["calibrate", *size, *place]


def _calibrated(folder: Path, run: Run) -> None:
    size = ["--count", "1", "--num-frames", "1", "--num-inference-steps", "3"]
    run([
        "calibrate", *size, "--out", str(folder / "calibration.yaml"), "--folder", str(folder / "kept"),
    ])  # fmt: skip


def _search(folder: Path) -> list[str]:
    return [
        "search", "--calibration", str(folder / "calibration.yaml"), "--budget", "0.6", "--count", "1",
        "--num-frames", "1", "--judgements", "2", "--out", str(folder / "made/schedule.yaml"),
        "--memory", str(folder / "made/judgements.jsonl"),
    ]  # fmt: skip


def _compare(folder: Path) -> list[str]:
    return [
        "compare", "--methods", "lossless", "--clips", "1", "--num-frames", "1",
        "--num-inference-steps", "2", "--converged-steps", "0", "--no-controls",
        "--json", str(folder / "made/figures.json"), "--html", str(folder / "made/page.html"),
        "--memory", str(folder / "made/clips.jsonl"),
    ]  # fmt: skip


CASES = {
    case.name: case
    for case in (
        Case("generate", _generate, _generate),
        Case("generate, kept", _generate_kept, _generate_kept),
        Case("generate, a folder", _generate_folder, _generate_folder, _older_folder),
        Case("resume", _resume, _resume, _begun),
        Case("run", _run_shot, _run_shot, _shot_with_older_clip),
        Case("batch", _batch, _batch_again, _shot, fails=True),
        Case("extract", _extract, _extract),
        Case("extract, crowded", _extract, _extract, _crowded),
        Case("cache --clear", lambda folder: ["cache", "--clear"], _extract, _crowded),
        Case("calibrate", _calibrate, _calibrate),
        Case("search", _search, _search, _calibrated),
        Case("compare", _compare, _compare),
    )
}


def _part(name: str, work: InFolder, before: InFolder | None = None) -> Case:
    def prepare(folder: Path, run: Run) -> None:
        if before is not None:
            before(folder)

    def command(folder: Path) -> Work:
        return partial(work, folder)

    return Case(f"part: {name}", command, command, prepare, whole=False)


CASES |= {
    case.name: case
    for case in (
        _part("work folder", parts.work_folder),
        _part("work at a URL", parts.work_at_a_url),
        _part("queue", parts.queue),
        _part("results file", parts.results_file),
        _part("kept extraction", parts.extraction, parts.older_extraction),
        _part("clearing extractions", parts.cleared, parts.older_extraction),
        _part("movie", parts.movie, parts.older_movie),
        _part("folder of frames", parts.pictures, parts.older_pictures),
        _part("gif and webp", parts.animation),
        _part("graph and text", parts.graph),
    )
}

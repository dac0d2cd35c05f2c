"""What writes files, without the models: these take milliseconds, so that every boundary of them is tried."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from hgc_video.errors import InputError
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.files import write_text
from hgc_video.jobs.add_jobs import NewJob, add_jobs
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.jobs.engines.work_sync import work_at
from hgc_video.jobs.queue import Queue, Result
from hgc_video.media.video import write_video
from hgc_video.models import kept_data
from hgc_video.preprocess import kept

_STEPS = 3


def _frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)


def work_folder(folder: Path) -> None:
    """A run's states, its decoded frames and its end, as `FolderKeeper` and `Work` keep them; a checkpoint
    that cannot be written costs the run nothing."""
    work = WorkFolder(folder / "made/work")
    work.open()
    if work.read("job") is None:
        work.write("job", {"what": "a test"})
    warnings.simplefilter("ignore")
    state = work.newest(torch.device("cpu"))
    first = 0 if state is None else state["step"]
    prompt = torch.zeros(8)  # written once
    for step in range(first + 1, _STEPS + 1):
        with suppress(InputError):
            latents = torch.full((4, 4), float(step))
            work.keep(work.snapshot({"step": step, "latents": latents, "prompt": prompt}))
    if work.frames(0, 2) is None:
        with suppress(InputError):
            work.keep_frames(0, _frames(2))
    clip = write_video(folder / "made/clip.mp4", _frames(2), 8)
    write_text(folder / "made/report.json", f'{{"resumed_at": {first}}}')
    work.finish(clip, "digest")
    work.close()


def work_at_a_url(folder: Path) -> None:
    """Three machines, one after the other, each keep a state of one run, whose work lies at a URL; what of a
    machine cannot be copied there costs that machine's states."""
    warnings.simplefilter("ignore")
    place, resumed = f"file://{folder}/made/storage/job", None
    for step in range(1, _STEPS + 1):
        with work_at(place, every_s=3600) as here:
            work = WorkFolder(here)
            work.open()
            if work.read("job") is None:
                work.write("job", {"what": "a test"})
            state = work.newest(torch.device("cpu"))
            at = 0 if state is None else state["step"]
            resumed = at if resumed is None else resumed
            for number in range(at + 1, step + 1):
                work.keep(
                    work.snapshot({"step": number, "latents": torch.full((4, 4), float(number))})
                )
            if step == _STEPS:
                work.write("done", {"job": "digest"})
            work.close()
    write_text(folder / "made/report.json", f'{{"resumed_at": {resumed}}}')


def queue(folder: Path) -> None:
    """Two jobs whose clips are made, one after the other, and one that fails."""
    batch = Queue(folder / "made/batch")
    jobs = [NewJob(f"{name}.mp4", {"prompt": name}, name, "model") for name in "abc"]
    add_jobs(batch, jobs)
    batch.recover()
    batch.retry_failed()
    while (job := batch.claim("worker")) is not None:
        if job.name == "c.mp4":
            batch.fail(job, "it is to fail")
            continue
        part = folder / "made/batch" / f".part-{job.id}.mp4"
        try:  # as the worker and the drive do
            part.write_bytes(job.name.encode() * 100)
            batch.beat({job.claim: (1, 2)})
            batch.finish(job, part, Result("d" * 64, 1.0, 0.5))
        except OSError as error:
            batch.fail(job, str(error))
    batch.close()


def results_file(folder: Path) -> None:
    """Three results, each measured once."""
    results = ResultsFile(folder / "made/kept/results.jsonl")
    known = {result["number"] for result in results.read("task")}
    for number in range(3):
        if number not in known:
            results.add("task", [{"number": number, "measured": list(range(400))}])


def _extraction(number: int) -> None:
    request = {"preprocessor": "a test", "number": number}
    if kept.kept(request) is None:
        kept.keep(request, iter(_frames(8, number)), f"film {number}")
    found = kept.kept(request)
    if found is not None:
        assert np.array_equal(np.stack(list(found.read())), _frames(8, number))


def older_extraction(folder: Path) -> None:
    """One extraction is kept, and there is room for no other."""
    _extraction(0)
    kept.set_limit(9_000)


def extraction(folder: Path) -> None:
    """One more, for which the older one must go; then another command finds it."""
    _extraction(1)
    _extraction(1)


def cleared(folder: Path) -> None:
    """All that is kept is dropped, and one is made again."""
    kept.clear()
    _extraction(0)


def movie(folder: Path) -> None:
    """A clip in place of an older one."""
    write_video(folder / "made/clip.mp4", _frames(4), 8)


def older_movie(folder: Path) -> None:
    """The older one."""
    write_video(folder / "made/clip.mp4", _frames(3, 1), 8)


def pictures(folder: Path) -> None:
    """A folder of frames in place of an older one."""
    write_video(folder / "made/clip", _frames(3), 8)


def older_pictures(folder: Path) -> None:
    """The older one, of more frames."""
    write_video(folder / "made/clip", _frames(5, 1), 8)


def animation(folder: Path) -> None:
    """A gif and a webp."""
    write_video(folder / "made/clip.gif", _frames(3), 8)
    write_video(folder / "made/clip.webp", _frames(3), 8)


def graph(folder: Path) -> None:
    """A graph in the user's folder, and a file of text."""
    kept_data.keep({"request": 1}, {"data": list(range(500))})
    write_text(folder / "made/calibration.yaml", "values: [1, 2, 3]\n")

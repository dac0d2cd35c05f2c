"""What lies where runs are resumed from: what nothing will resume goes, all else stays."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from hgc_video.jobs.add_jobs import add_jobs
from hgc_video.jobs.drive import Drive, Stop
from hgc_video.jobs.engines.work_sync import names_at
from hgc_video.jobs.left_work import remove_left_work, work_of

from .hand_engine import HandEngine
from .queue_parts import RESULT, job, part

KEYS = {"done": "0" * 64, "queued": "1" * 64, "running": "2" * 64, "failed": "3" * 64}


@pytest.fixture
def jobs(queue):
    """A job in each state, by it."""
    add_jobs(queue, [job(name, key) for name, key in KEYS.items() if name != "queued"])
    made = {}
    for _ in range(3):
        claimed = queue.claim("w")
        made[claimed.name.removesuffix(".mp4")] = claimed
    queue.finish(made["done"], part(queue), RESULT)
    queue.fail(made["failed"], "no prompt")
    add_jobs(queue, [job("queued", KEYS["queued"])])
    made["queued"] = queue.claim("w")
    queue.give_back(made["queued"])
    return made


def lies(storage, *names):
    """Work of these names at a place."""
    for name in names:
        (Path(storage) / name).mkdir(parents=True)
        (Path(storage) / name / "job.json").write_text("{}")


def own_names(queue, jobs):
    return {name: Path(work_of(one, queue.folder, "/s")).name for name, one in jobs.items()}


def test_where_there_is_no_storage_nothing_is_left(queue, jobs):
    assert work_of(jobs["done"], queue.folder, "") == ""


def test_of_jobs_that_are_done_nothing_stays_and_of_others_everything(queue, jobs, tmp_path):
    storage, names = str(tmp_path / "shared"), own_names(queue, jobs)
    other = "another-1-" + "0" * 8
    lies(storage, *names.values(), other, "b-1", f"b-{jobs['done'].id}-{'f' * 8}", "b-99-00000000")
    remove_left_work(queue, storage)
    assert sorted(names_at(storage)) == sorted(
        [names["queued"], names["running"], names["failed"], other, "b-1",
         f"b-{jobs['done'].id}-{'f' * 8}", "b-99-00000000"]
    ), "what another batch of this name may have left stays"  # fmt: skip


def test_in_the_batch_folder_that_of_jobs_that_are_no_more_goes_too(queue, jobs):
    storage, names = str(queue.folder.absolute() / "work"), own_names(queue, jobs)
    lies(
        storage, *names.values(), f"b-{jobs['queued'].id}-{'f' * 8}", "b-99-00000000",
        "before-it-was-moved-1-00000000", "my notes",
    )  # fmt: skip
    remove_left_work(queue, storage)
    kept = [names["queued"], names["running"], names["failed"], "my notes"]
    assert sorted(names_at(storage)) == sorted(kept)


def test_a_batch_begins_with_it_where_nothing_is_to_be_made_too(queue, jobs):
    storage, names = str(queue.folder.absolute() / "work"), own_names(queue, jobs)
    queue.table.execute("UPDATE jobs SET state = 'done'")
    lies(storage, *names.values())
    Drive(queue, HandEngine(), lambda event: None, storage=storage).run(Stop())
    assert names_at(storage) == []


def test_work_at_a_url_goes_and_a_place_that_is_not_there_is_no_fault(queue, jobs):
    url, names = "memory://storage", own_names(queue, jobs)
    files = fsspec.filesystem("memory")
    for name in (names["done"], names["failed"]):
        files.pipe(f"/storage/{name}/job.json", b"{}")
    remove_left_work(queue, url)
    assert names_at(url) == [names["failed"]]
    files.rm("/storage", recursive=True)
    for place in (url, "nosuch://host/a", str(queue.folder / "gone")):
        assert names_at(place) == []
        remove_left_work(queue, place)

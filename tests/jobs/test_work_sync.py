"""The work of a run at a URL: there when it begins anew elsewhere, marks of completeness last."""

from __future__ import annotations

import threading
import time

import pytest

from hgc_video.jobs.engines import work_sync
from hgc_video.jobs.engines.work_sync import remove_work, work_at


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
    assert not here.exists()
    with work_at(url) as there:
        assert (there / "steps" / "3.safetensors").read_text() == "latents"
        (there / "old").unlink()
        (there / "steps" / "3.safetensors").write_text("latents of step 5")
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
        copied(self, path, inner)

    monkeypatch.setattr(work_sync._Copied, "_copy", note)
    with work_at(f"file://{tmp_path / 'work'}", every_s=60) as here:
        for name in ("z.safetensors", "m.json", "a.complete"):
            (here / name).write_text(name)
            time.sleep(0.01)
    assert arrived == ["z.safetensors", "m.json", "a.complete"]

"""Results that are kept: by task, past lines that were left unfinished, from several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hgc_video.errors import InputError
from hgc_video.evaluate.jobs import workers
from hgc_video.evaluate.results_file import ResultsFile


def test_results_come_back_by_task_in_their_order(tmp_path):
    results = ResultsFile(tmp_path / "not there yet" / "results.jsonl")
    assert results.read("a") == []
    results.add("a", [{"clip": 0, "psnr_db": 31.5}, {"clip": 1, "psnr_db": None}])
    results.add("b", [{"clip": 0}])
    results.add("a", [{"clip": 2}])
    assert results.read("a") == [
        {"clip": 0, "psnr_db": 31.5},
        {"clip": 1, "psnr_db": None},
        {"clip": 2},
    ]
    assert results.read("b") == [{"clip": 0}]


def test_an_unfinished_line_is_skipped_and_spoils_no_other(tmp_path):
    results = ResultsFile(tmp_path / "results.jsonl")
    results.add("a", [{"clip": 0}, {"clip": 1}])
    whole = results.path.read_bytes()
    results.path.write_bytes(whole[:-5])
    assert results.read("a") == [{"clip": 0}]
    results.add("a", [{"clip": 1}])
    assert results.read("a") == [{"clip": 0}, {"clip": 1}]
    results.path.write_text("no JSON\n[1]\n{}\n" + results.path.read_text())
    assert results.read("a") == [{"clip": 0}, {"clip": 1}]


def _add(results: ResultsFile, clip: int) -> None:
    for part in range(20):
        results.add("a", [{"clip": clip, "part": part, "text": "x" * 3000}])


def test_processes_append_whole_lines_beside_each_other(tmp_path):
    results = ResultsFile(tmp_path / "results.jsonl")
    with workers(2) as each:
        each(partial(_add, results), [0, 1])
    found = {(one["clip"], one["part"]) for one in results.read("a")}
    assert found == {(clip, part) for clip in (0, 1) for part in range(20)}
    assert all(len(one["text"]) == 3000 for one in results.read("a"))


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "a.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot write"):
            ResultsFile(place).add("task", [{"number": 1}])
        with pytest.raises(InputError, match="cannot write"):
            ResultsFile(place).check_writable()


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: is a directory; name another file"):
        ResultsFile(tmp_path).read("a")
    with pytest.raises(InputError, match="too long for a path"):
        ResultsFile(tmp_path / ("a" * 300))


def test_a_device_or_a_pipe_is_refused_at_once(tmp_path):
    """Of /dev/zero it would read without end, of a pipe wait for somebody to write."""
    os.mkfifo(tmp_path / "f.jsonl")
    for path in (tmp_path / "f.jsonl", Path("/dev/zero")):
        for ask in (
            ResultsFile(path).check_writable,
            lambda path=path: ResultsFile(path).read("a"),
        ):
            with pytest.raises(InputError, match=r"is a device or a pipe; name a file$"):
                ask()


def test_a_line_that_is_no_text_is_skipped(tmp_path):
    results = ResultsFile(tmp_path / "results.jsonl")
    results.add("a", [{"clip": 0}, {"clip": 1}])
    whole = results.path.read_bytes()
    results.path.write_bytes(whole.replace(b'"clip": 0', b'"clip\xff": 0'))
    assert results.read("a")[-1] == {"clip": 1}


def test_asking_whether_it_can_be_written_leaves_no_file(tmp_path):
    results = ResultsFile(tmp_path / "new" / "results.jsonl")
    results.check_writable()
    assert not list((tmp_path / "new").iterdir())
    results.add("a", [{"clip": 0}])
    results.check_writable()
    assert results.read("a") == [{"clip": 0}]


def test_results_that_are_gone_again_are_told(tmp_path):
    results = ResultsFile(tmp_path / "results.jsonl")
    results.require([1, 2], {1: "a", 2: "b"})
    with pytest.raises(InputError, match=r"1 of the results in .*results\.jsonl\" are gone since"):
        results.require([1, 2], {1: "a"})


@dataclass(frozen=True)
class Judged:
    plan: str
    error_db: float
    more: int | None = None


def test_results_that_lack_something_are_skipped(tmp_path):
    """They are measured again, as those that were not written to the end."""
    file = ResultsFile(tmp_path / "a.jsonl")
    right = [
        {"plan": "F", "error_db": 1},
        {"plan": "FH", "error_db": -2.5, "more": 3, "other": [1]},
    ]
    wrong = [{}, {"plan": "F"}, {"plan": "F", "error_db": "1"}, {"plan": 1, "error_db": 1.0},
             {"plan": "F", "error_db": None}, {"plan": "F", "error_db": 1.0, "more": "x"}]  # fmt: skip
    file.add("a", [right[0], *wrong, right[1]])
    assert file.read("a", Judged) == right
    assert len(file.read("a")) == len(wrong) + 2

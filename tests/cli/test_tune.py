"""calibrate, search and compare on the command line: what is refused, in one line and before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.test_cli import invoke, refused

_CALIBRATION = Path(__file__).parents[2] / "configs" / "puppet-calibration.yaml"


def command(name, folder):
    """A command with what it needs; all that it may write lies in the folder."""
    needed = {
        "calibrate": ["--out", folder / "c.yaml", "--folder", folder],
        "search": [
            "--calibration", _CALIBRATION, "--budget", 0.5, "--out", folder / "s.yaml", "--memory",
            folder / "j.jsonl",
        ],
        "compare": ["--methods", "fast", "--memory", folder / "m.jsonl"],
    }  # fmt: skip
    return [name, *needed[name]]


_ONE_OR_MORE = [
    *[("calibrate", option) for option in ("--count", "--num-frames", "--jobs")],
    *[("search", option) for option in ("--count", "--num-frames", "--jobs", "--judgements")],
    *[
        ("compare", option)
        for option in ("--clips", "--num-frames", "--num-inference-steps", "--jobs", "--seeds")
    ],
]


@pytest.mark.parametrize(("name", "option"), _ONE_OR_MORE)
def test_numbers_below_one_are_refused(tmp_path, name, option):
    told = option.removeprefix("--").replace("-", "_").replace("clips", "count")
    done = invoke(*command(name, tmp_path), option, 0)
    refused(done, f"{told}=0 is not possible; give 1 or more")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "option", "value", "told"),
    [
        ("calibrate", "--num-inference-steps", "1", "give 2 or more"),
        ("calibrate", "--num-frames", "5001", "more than 20000 frames"),
        ("search", "--converged-steps", "-1", "give 0 or more"),
        ("search", "--budget", "0", "a share of the uncached MACs above 0"),
        ("search", "--budget", "nan", "a share of the uncached MACs above 0"),
        ("search", "--budget", "inf", "a share of the uncached MACs above 0"),
        ("search", "--lengths", "1,x", '--lengths has "x", which is no number'),
        ("search", "--lengths", "0", "come to 1 to 1000 steps"),
        ("search", "--lengths", "1,41", "lengths=41.0 of 25 steps"),
        ("search", "--lengths", "nan", "come to 1 to 1000 steps"),
        ("search", "--letters", "H", "give F, which the first step is"),
        ("search", "--letters", "FX", 'letters="FX" is not possible'),
        ("compare", "--converged-steps", "-1", "give 0 or more"),
        ("compare", "--clips", "5001", "more than 20000 frames"),
        ("compare", "--methods", ",", "no methods are given"),
    ],
)
def test_what_is_not_possible_is_refused(tmp_path, name, option, value, told):
    refused(invoke(*command(name, tmp_path), option, value), told)
    assert not list(tmp_path.iterdir())


def test_more_samples_than_are_listed_are_refused(tmp_path):
    listed = tmp_path / "samples.yaml"
    listed.write_text(yaml.safe_dump([{"control": "a.mp4", "prompt": "a dancer"}]))
    for name, option in (("calibrate", "--count"), ("search", "--count"), ("compare", "--clips")):
        done = invoke(*command(name, tmp_path), "--samples", listed, option, 2)
        refused(done, "2 samples are asked for", "lists 1; ask for no more")
    assert list(tmp_path.iterdir()) == [listed]


def test_what_compare_and_search_write_is_not_what_they_read(tmp_path):
    listed = tmp_path / "samples.yaml"
    listed.write_text("[]")
    both = ["--json", tmp_path / "a", "--html", tmp_path / "a"]
    refused(invoke("compare", *both), "--html", "the file of --json itself")
    for command in (["compare", "--json"], ["calibrate", "--out"]):
        refused(invoke(*command, listed, "--samples", listed), "the list of samples itself")
    refused(
        invoke("search", "--calibration", listed, "--budget", 0.5, "--out", listed),
        "the calibration",
    )
    assert listed.read_text() == "[]"

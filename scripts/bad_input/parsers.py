"""Texts and bytes that this package parses by itself, for a campaign that follows which lines they reach.

Each has good texts to begin from, and a reader that returns, raises an error of ours, or fails an assertion.
Clips, images and weights are read by libraries, which are not followed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hgc_video.cli.show import lines
from hgc_video.errors import InputError
from hgc_video.evaluate.methods import make_method, split_methods
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.files import user_path
from hgc_video.jobs.checkpoint.description import Description
from hgc_video.jobs.checkpoint.durable import COMPLETE, fault_of
from hgc_video.jobs.checkpoint.keeper import FolderKeeper
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.jobs.job_list import parse_matrix
from hgc_video.jobs.result_names import check_pattern, result_name
from hgc_video.jobs.shot import parse_setting
from hgc_video.models.config_file import read_config
from hgc_video.models.single_file import family_of
from hgc_video.options.values import span_of
from hgc_video.plan.calibration import load_calibration, load_changes, load_products
from hgc_video.plan.graph import BlockGraph
from hgc_video.plan.memory.budget import MemoryPlan, parse_nbytes
from hgc_video.plan.schedule import Schedule
from hgc_video.preprocess.registry import make_preprocessor
from hgc_video.report import Report
from hgc_video.sampling.configuration import parsed
from hgc_video.ui.request import checked, field_of, options_from
from hgc_video.ui.uploads import Uploads

from .configurations import check_found, good_configurations
from .mutate import mutated_data, mutated_text
from .texts import (
    check_calibration,
    check_list,
    check_policy_text,
    check_schedule,
    check_shot,
    good_calibrations,
    good_lists,
    good_policies,
    good_schedules,
    good_shots,
)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parser:
    """`good` makes good texts in a folder; `read` reads one, and may write in its folder. `data` is how the
    text holds values, which are mutated as values too: "json", "yaml", or "" where it holds none."""

    good: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], Any]
    data: str = ""

    def mutated(self, text: bytes, random_: random.Random) -> bytes:
        """The text with a value or a word changed; as it is where it cannot be."""
        words = text.decode("utf-8", "replace")
        try:
            if not self.data or random_.random() < 0.4:
                return _bytes(mutated_text(words, random_)[1])
            load, dump = (
                (json.loads, json.dumps)
                if self.data == "json"
                else (yaml.safe_load, yaml.safe_dump)
            )
            return _bytes(dump(mutated_data(load(words), random_)[1]))
        except (ValueError, TypeError, OverflowError, RecursionError, LookupError, yaml.YAMLError):
            return text


# Beside the good texts: what no change of a good text comes upon soon.
HOSTILE = (
    b"[" * 5000, b'{"a":' * 3000, b"9" * 6000, b"1e999999", b"\0", b"\x1b[2J", b"\xff\xfe", b"NaN", b"~",
    "\u202e\U000e0001".encode(), "\u0663:\u0669".encode(), b"{number:099999999}", b"-Infinity", b"../../a",
    b"a" * 9000,
)  # fmt: skip


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _contents(good: Callable[[Path], list[Path]], only: str = "") -> Callable[[Path], list[bytes]]:
    return lambda folder: [path.read_bytes() for path in good(folder) if only in path.name]


def _words(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in texts]


def _file(name: str, check: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    def read(text: bytes, folder: Path) -> Any:
        (folder / name).write_bytes(text)
        return check(folder / name)

    return read


def _text(check: Callable[[str], Any]) -> Callable[[bytes, Path], Any]:
    return lambda text, folder: check(text.decode("utf-8", "replace"))


_STEPS = 3  # of a calibration, whose size goes with their square


def _good_calibration(folder: Path) -> list[bytes]:
    """The first steps of the one that is shipped."""

    def first(data: Any) -> Any:
        if isinstance(data, dict):
            return {name: first(value) for name, value in data.items()}
        return [first(value) for value in data[:_STEPS]] if isinstance(data, list) else data

    whole = yaml.safe_load(good_calibrations(folder)[0].read_bytes())
    told = {**first(whole), "num_inference_steps": _STEPS}
    told["reused"] = {
        depth: {at: row for at, row in rows.items() if max(map(int, at.split())) < _STEPS}
        for depth, rows in whole["reused"].items()
    }
    return [_bytes(yaml.safe_dump(told, sort_keys=False))]


def _check_calibration(path: Path) -> None:
    load_calibration(path)
    load_changes(path, _STEPS)
    load_products(path)


def _work_file(name: str) -> Callable[[Path], list[bytes]]:
    """A file of a work folder of a run that is done."""

    def good(folder: Path) -> list[bytes]:
        from hgc_video import generate

        generate(
            ROOT / "examples" / "dance_pose.mp4", "a dancer", num_frames=2, num_inference_steps=1, height=64,
            width=64, work=folder / "work", out=folder / "clip.mp4", progress=False,
        )  # fmt: skip
        return [(folder / "work" / name).read_bytes()]

    return good


def _configurations(folder: Path) -> list[bytes]:
    """One with files, one without, and one that tells all that a finished clip does."""
    made = good_configurations(folder)[0].read_bytes()
    plain = {
        "format": 1,
        "options": {"prompt": "a dancer", "seed": 3},
        "versions": {"python": "3.12"},
    }
    of_clip = {"width": 64, "height": 64, "num_frames": 2, "fps": 8.0}
    step = {"step": 0, "label": "key", "reason": "code F", "macs": 1, "macs_stock": 2}
    told = {**plain, "clip": of_clip, "steps": [step], "models": {"unet": "0" * 64}, "files": {}}
    return [made, *(json.dumps(each).encode() for each in (plain, told))]


def _check_found(text: bytes, folder: Path) -> None:
    (folder / "pose.mp4").write_bytes(b"")
    told = parsed(text.decode("utf-8", "replace"), folder / "clip.mp4")
    with suppress(InputError):
        check_found(told, folder / "clip.mp4")
    assert all(line.isprintable() for line in lines(told, folder / "clip.mp4"))


def _check_job(path: Path) -> None:
    folder = WorkFolder(path.parent)
    if (told := folder.read("job")) is not None:
        Description.from_dict(told).given(folder.path)


def _check_plan(path: Path) -> None:
    folder = WorkFolder(path.parent)
    keeper = FolderKeeper(lambda: folder, 60.0, at_once=True)
    keeper.memory_plan(_no_choice)


def _no_choice() -> MemoryPlan:
    raise InputError("there is no plan")


def _check_done(path: Path) -> None:
    WorkFolder(path.parent).is_finished(path.parent / "clip.mp4", "0" * 64)


def _check_report(text: str) -> None:
    report = Report.from_json(text)
    str(report)
    report.to_json()


@dataclass(frozen=True)
class _Numbered:
    number: int


def _check_results(path: Path) -> None:
    rows = ResultsFile(path)
    known = rows.read("a", _Numbered)
    rows.add("a", [{"number": 1}])
    assert len(rows.read("a", _Numbered)) == len(known) + 1
    assert all(isinstance(row["number"], int) for row in known)
    rows.require([], {})


def _check_complete(path: Path) -> None:
    (path.parent / "frames.bin").write_bytes(b"frames")
    fault_of(path.parent)


def _check_config(path: Path) -> None:
    read_config(path.parent)


def _check_pattern(text: str) -> None:
    name = result_name(check_pattern(text), "a dancer", 7, {"seed": 3, "preset": "balanced"})
    assert (ROOT / user_path(name)).resolve().is_relative_to(ROOT), f"{name} leads out"


def _check_nbytes(text: str) -> None:
    assert parse_nbytes(text) > 0


def _check_span(text: str) -> None:
    start, end = span_of(text)
    assert start >= 0 and (end is None or end > start), f"{start} {end}"


def _check_methods(text: str) -> None:
    for method in split_methods(text):
        make_method(method)


def _good_graphs(folder: Path) -> list[bytes]:
    told = {
        "layers": [
            {"name": "unet.in", "kind": "conv_in", "inputs": [], "macs": 1, "nbytes": 8},
            {"name": "unet.up", "kind": "resnet", "inputs": ["unet.in"], "macs": 10, "nbytes": 8},
        ],
        "depths": ["unet.up"], "branches": 2, "num_frames": 4, "blocks": [1],
    }  # fmt: skip
    BlockGraph.from_dict(told)
    return [json.dumps(told).encode()]


def _check_graph(text: str) -> None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return
    graph = BlockGraph.from_dict(told)
    assert BlockGraph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


_FORM = {
    "control": "", "prompt": "a dancer", "num_frames": 16, "seed": 3, "preset": "balanced",
    "lora": [{"file": "style", "scale": 0.5}], "prompt_at": [{"frame": 8, "text": "a"}],
}  # fmt: skip


def _check_form(text: bytes, folder: Path) -> None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        options = options_from(told, Uploads(folder, 1 << 20), shared=True)
        field_of(str(told.get("prompt")))
        checked({"control_video": "pose.mp4", **options})


def _good_weights(folder: Path) -> list[bytes]:
    header = json.dumps(
        {"conv.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    ).encode()
    return [len(header).to_bytes(8, "little") + header + bytes(16)]


PARSERS: dict[str, Parser] = {
    "shot files": Parser(_contents(good_shots), _file("shot.yaml", check_shot), "yaml"),
    "job lists": Parser(_contents(good_lists), _file("jobs.yaml", check_list), "yaml"),
    "searched schedules": Parser(
        _contents(good_schedules, "quality"), _file("quality.yaml", check_schedule), "yaml"
    ),
    "printed schedules": Parser(
        _contents(good_schedules, "printed"), _text(Schedule.from_yaml), "yaml"
    ),
    "calibrations": Parser(_good_calibration, _file("calibration.yaml", _check_calibration), "yaml"),
    "lists of samples": Parser(
        _contents(good_calibrations, "samples"), _file("samples.yaml", check_calibration), "yaml"
    ),
    "policies": Parser(_contents(good_policies), _text(check_policy_text)),
    "configurations of clips": Parser(
        _configurations, _check_found, "json"
    ),
    "work folders": Parser(_work_file("job.json"), _file("job.json", _check_job), "json"),
    "plans of work folders": Parser(_work_file("plan.json"), _file("plan.json", _check_plan), "json"),
    "ends of work folders": Parser(_work_file("done.json"), _file("done.json", _check_done), "json"),
    "reports": Parser(_work_file("report.json"), _text(_check_report), "json"),
    "marks of whole folders": Parser(
        _words('{"frames.bin": {"nbytes": 6, "sha256": "00"}}'), _file(COMPLETE, _check_complete), "json"
    ),
    "files of results": Parser(
        _words('{"task": "a", "number": 0}\n{"task": "b", "x": [1]}\n'), _file("rows.jsonl", _check_results)
    ),
    "forms of the page": Parser(_words(json.dumps(_FORM)), _check_form, "json"),
    "graphs": Parser(_good_graphs, _text(_check_graph), "json"),
    "configurations of models": Parser(
        _words('{"_class_name": "UNet2DConditionModel", "layers_per_block": [2, 2]}'),
        _file("config.json", _check_config), "json",
    ),
    "headers of weights": Parser(_good_weights, _file("a.safetensors", family_of)),
    "names of results": Parser(
        _words("{name}-{number:03}", "{preset}/{name}_{seed}.webp", "a{{b}}{number}"), _text(_check_pattern)
    ),
    "settings": Parser(
        _words("seed=3", "control_scale={pose: 0.7}", "prompt={0: a, 8: b}"), _text(parse_setting)
    ),
    "matrices": Parser(
        _words("seed=1,2", "preset=[balanced, fast]", "guidance_scale=2,7.5"),
        _text(lambda text: parse_matrix(text.splitlines())),
    ),
    "amounts of memory": Parser(_words("8GiB", "512 MiB", "1e9", "6.5gb"), _text(_check_nbytes)),
    "spans of frames": Parser(_words("0:8", "16:", ":4", "3"), _text(_check_span)),
    "methods": Parser(_words("fast,hgc:interval=3,depth=1", "full;balanced+lossless"), _text(_check_methods)),
    "preprocessors": Parser(_words("canny:low=50,high=100", "pose", "depth"), _text(make_preprocessor)),
}  # fmt: skip

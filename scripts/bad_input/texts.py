"""Shot files, lists of jobs, schedules, calibrations and policies: good ones, and how they are read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hgc_video.evaluate.samples import read_samples
from hgc_video.forecast import forecast
from hgc_video.jobs.job_list import read_jobs
from hgc_video.jobs.shot import read_shot
from hgc_video.options import GenerateOptions
from hgc_video.plan.calibration import load_calibration, load_changes, load_products
from hgc_video.plan.policies.searched import load_coded_schedule
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]


_SHOT = {
    "control": {"pose": "pose.mp4", "depth": "depth.mp4"}, "control_scale": {"pose": 0.7},
    "prompt": {0: "a dancer on a beach", 8: "a dancer in a forest"}, "negative_prompt": "blurred",
    "num_frames": 16, "frames": "0:32", "every": 2, "preset": "hgc:interval=3,depth=1,gate=0.6+lossless",
    "num_inference_steps": 25, "guidance_scale": 7.5, "seed": 3, "height": 128, "width": 128,
    "memory": "8GiB", "scheduler": "ddim", "out": "clip.mp4", "crf": 20, "audio": "song.mp3",
    "lora": {"a.safetensors": 0.5}, "strength": 0.5, "extract": True,
}  # fmt: skip


def good_shots(folder: Path) -> list[Path]:
    """A shot file with most kinds of options, and the one that `init` writes for the example."""
    path = folder / "shot.yaml"
    path.write_text(
        yaml.safe_dump({k: v for k, v in _SHOT.items() if k in GenerateOptions.model_fields})
    )
    return [path]


def check_shot(path: Path) -> None:
    """Reads and checks a shot file; a path in it leads nowhere else."""
    shot = read_shot(path)
    shot.checked()
    _inside(shot.options, path.parent)


def _inside(options: Mapping[str, Any], folder: Path) -> None:
    named = (
        [*options.get("control", {}).values()]
        if isinstance(options.get("control"), Mapping)
        else []
    )
    named += [
        options.get(name) for name in ("video", "image", "out", "work", "audio", "control_video")
    ]
    for path in named:
        if isinstance(path, str):
            assert Path(path).resolve().is_relative_to(folder.resolve()), f"{path} lies outside"


def good_lists(folder: Path) -> list[Path]:
    """A list of jobs."""
    told = {
        "defaults": {"control": {"pose": "pose.mp4"}, "num_frames": 4, "num_inference_steps": 4},
        "jobs": [{"name": "a", "prompt": "a dancer"}, {"prompt": "b", "seed": 5, "preset": "fast"}],
        "matrix": {"preset": ["balanced", "hgc:interval=3,depth=1"], "guidance_scale": [2, 7.5]},
        "seeds": 2, "name": "{name}-{number:03}",
    }  # fmt: skip
    path = folder / "jobs.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return [path]


def check_list(path: Path) -> None:
    """Reads a list of jobs and makes them."""
    (path.parent / "pose.mp4").write_bytes(b"a clip")
    for number, job in enumerate(read_jobs(path).jobs()):
        assert (path.parent / job.name).resolve().is_relative_to(path.parent.resolve())
        if number > 200:
            break


def good_schedules(folder: Path) -> list[Path]:
    """Searched schedules, and a schedule that was printed."""
    made = []
    for name in ("balanced", "quality", "turbo"):
        made.append(folder / f"{name}.yaml")
        shutil.copy(ROOT / "configs" / "schedules" / f"{name}.yaml", made[-1])
    plan = forecast(preset="balanced", num_inference_steps=6, num_frames=4).plan
    printed = folder / "printed.yaml"
    printed.write_text(plan.to_yaml())
    return [*made, printed]


def check_schedule(path: Path) -> None:
    """Reads a schedule and plans a run by it."""
    if path.name == "printed.yaml":
        Schedule.from_yaml(path.read_bytes().decode("utf-8", "replace"))
        return
    load_coded_schedule(path)
    _planned(f"searched:file={path}")


def _planned(preset: str) -> None:
    planned = forecast(preset=preset, num_inference_steps=8, num_frames=4)
    assert len(planned.plan) > 0


def good_calibrations(folder: Path) -> list[Path]:
    """The calibration that is shipped, and a list of samples."""
    shutil.copy(ROOT / "configs" / "puppet-calibration.yaml", folder / "calibration.yaml")
    samples = [{"control": "a.mp4", "kind": "pose", "prompt": "a dancer", "seed": 1}] * 2
    (folder / "samples.yaml").write_text(yaml.safe_dump(samples))
    return [folder / "calibration.yaml", folder / "samples.yaml"]


def check_calibration(path: Path) -> None:
    """Reads a calibration in all its ways, or a list of samples."""
    if path.name == "samples.yaml":
        read_samples(path)
        return
    load_calibration(path)
    load_changes(path, 25)
    load_products(path)


_POLICIES = (
    "balanced", "quality=45dB", "hgc:interval=3,depth=1,gate=0.6", "deepcache:interval=3+lossless",
    "fewer-steps:steps=13+balanced", "gate:at=0.4", "l2p:interval=3", "dpm++:steps=10", "balanced+net",
    "full", "off", "turbo+gate:at=0.5",
)  # fmt: skip


def good_policies(folder: Path) -> list[Path]:
    """Presets and policies, each with its usual fields, a file each."""
    from hgc_video.plan.policies.registry import POLICIES

    _planned("balanced")  # what is loaded here is there in every fork
    texts = [*_POLICIES, *(f"{name}:interval=2" for name in POLICIES)]
    made = []
    for number, text in enumerate(texts):
        made.append(folder / f"{number:03}.txt")
        made[-1].write_text(text)
    return made


def check_policy(path: Path) -> None:
    """Resolves a preset and plans a run by it."""
    check_policy_text(path.read_text())


def check_policy_text(text: str) -> None:
    """The same of its text."""
    resolve(text)
    _planned(text)

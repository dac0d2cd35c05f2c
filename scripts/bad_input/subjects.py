"""What reads input, with good input of each kind to begin from.

A subject makes its good files once; a check reads one damaged file as the package does, and raises an error
of ours, returns where the result is right, or fails an assertion.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from hgc_video.evaluate.trials import read_samples
from hgc_video.forecast import forecast
from hgc_video.jobs.job_list import read_jobs
from hgc_video.jobs.queue import Queue
from hgc_video.jobs.queue_status import rows_of, status_of
from hgc_video.jobs.queue_table import FILE
from hgc_video.jobs.shot import read_shot
from hgc_video.media.metadata import read_text
from hgc_video.media.sound import Sound, Span, has_sound
from hgc_video.media.video import open_clip, write_video
from hgc_video.media.write import Extras
from hgc_video.models.load import load_pipeline, read_facts
from hgc_video.models.parts import ModelParts
from hgc_video.options import GenerateOptions
from hgc_video.plan.calibration import load_calibration, load_changes, load_products
from hgc_video.plan.policies.searched import load_coded_schedule
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule
from hgc_video.sampling.configuration import options_of, read_configuration

from .mutate import mutated, mutated_data, mutated_text

ROOT = Path(__file__).resolve().parents[2]
_MOST_FRAMES = 400  # that a check reads of what a damaged file claims to hold
Check = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """A kind of input. `good` writes good files into a folder and gives their paths; `damage` makes a damaged
    copy of one in a folder of its own and says how; `check` reads it. `reads_good`: it can read the good ones
    where they are."""

    good: Callable[[Path], list[Path]]
    damage: Callable[[Path, Path, random.Random], tuple[str, Path]]
    check: Callable[[Path], Any]
    share: int = 1  # of the inputs of a campaign
    reads_good: bool = True


def damaged_bytes(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A copy of a file with mutated bytes."""
    how, data = mutated(good.read_bytes(), random_)
    path = folder / good.name
    path.write_bytes(data)
    return how, path


def damaged_yaml(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A copy of a YAML file whose values, words or bytes are mutated."""
    path, kind = folder / good.name, random_.randrange(3)
    text = good.read_text()
    if kind == 0:
        how, data = mutated_data(yaml.safe_load(text), random_)
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    elif kind == 1:
        how, text = mutated_text(text, random_)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        return damaged_bytes(good, folder, random_)
    return how, path


# Clips


def good_movies(folder: Path) -> list[Path]:
    """A short clip of every format that the tests write, and one with sound and an embedded configuration."""
    from tests.media.barcoded import FORMATS, write

    made = []
    for number, written in enumerate(FORMATS.values()):
        path = folder / f"{number:02}.{written.suffix}"
        made.append(write(path, written, range(24), size=(64, 64)))
    made.append(folder / "spoken.mp4")
    shutil.copy(ROOT / "examples" / "dance_pose.mp4", made[-1])
    return made


def good_images(folder: Path) -> list[Path]:
    """GIF, WebP and still images of every kind that is read, with eight and sixteen bits."""
    from tests.media.barcoded import draw

    frames = np.stack([draw(number, 64, 64) for number in range(6)])
    made = [
        write_video(folder / name, frames, 8, extras=Extras(text='{"format": 1}'))
        for name in ("a.gif", "a.webp")
    ]
    for name in ("a.png", "a.jpg", "a.bmp", "b.webp"):
        Image.fromarray(frames[0]).save(folder / name)
        made.append(folder / name)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(folder / "deep.png")
    Image.fromarray(frames[0]).convert("P").save(folder / "palette.png")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(frames[0, :32]).save(folder / "turned.jpg", exif=rotated)
    return [*made, *(folder / name for name in ("deep.png", "palette.png", "turned.jpg"))]


def check_clip(path: Path) -> None:
    """Reads a clip's text, facts and frames, the last ones first, and its sound where it has any."""
    read_text(path)
    source = open_clip(path)
    info = source.info
    assert info.num_frames > 0 and info.height > 0 and info.width > 0
    assert 0 < info.fps < float("inf") and abs(info.begins_s) < float("inf")
    last = range(max(0, info.num_frames - 3), info.num_frames)
    first = range(min(info.num_frames, _MOST_FRAMES))
    for wanted in (last, first):
        count = 0
        for frame in source.frames(wanted):
            assert frame.shape == (info.height, info.width, 3) and frame.dtype == np.uint8
            count += 1
        assert count == len(wanted), f"{count} of {len(wanted)} frames came"


def check_sound(path: Path) -> None:
    """Writes a clip of three frames with the sound of a file."""
    if has_sound(path):
        sound = Sound(path, (Span(0.0, 0.2), Span(0.5, 0.6)))
        frames = np.zeros((3, 32, 32, 3), np.uint8)
        write_video(path.with_name("out.mp4"), frames, 8, extras=Extras(sound=sound))
        assert open_clip(path.with_name("out.mp4")).info.num_frames == 3


def good_sounds(folder: Path) -> list[Path]:
    """Files with sound: copied and encoded anew."""
    from tests.media.barcoded import FORMATS, write
    from tests.media.sounding import put_under
    from tests.media.sounding import write as write_sound

    silent = write(folder / "silent.mp4", FORMATS["h264 in mp4"], range(24), size=(64, 64))
    with_sound = [
        put_under(silent, folder / f"{codec}.{suffix}", codec, rate)
        for suffix, codec, rate in (
            ("mp4", "aac", 44100),
            ("mkv", "libopus", 48000),
            ("mov", "pcm_s16le", 44100),
        )
    ]
    silent.unlink()
    alone = [
        write_sound(folder / "a.mp3", 1, "libmp3lame"),
        write_sound(folder / "a.flac", 1, "flac"),
    ]
    return [path for path in (*with_sound, *alone) if path.is_file()]


# Configurations of finished clips


def good_configurations(folder: Path) -> list[Path]:
    """The configuration of a clip as JSON; a damaged one is embedded again."""
    options = GenerateOptions(
        control={"pose": "pose.mp4"}, prompt={0: "a", 8: "b"}, lora={"a.safetensors": 0.5}
    )
    told = {"format": 1, "options": options.to_dict(), "versions": {"python": "3.12"},
            "files": {"control.pose": {"name": "pose.mp4", "sha256": "0" * 64},
                      "lora.0": {"name": "a.safetensors", "key": True}}}  # fmt: skip
    path = folder / "configuration.json"
    path.write_text(json.dumps(told))
    return [path]


def damaged_configuration(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A GIF that carries a damaged configuration."""
    if random_.random() < 0.7:
        how, data = mutated_data(json.loads(good.read_text()), random_)
        text = json.dumps(data)
    else:
        how, text = mutated_text(good.read_text(), random_)
    (folder / "pose.mp4").write_bytes(b"")
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    return how, write_video(folder / "clip.gif", frames, 8, extras=Extras(text=text))


def check_configuration(path: Path) -> None:
    """Reads the options of a finished clip, and checks them."""
    found = options_of(read_configuration(path), path)
    assert found.get("out") is None and found.get("work") is None, "a clip says where to write"
    read_shot(path).checked()


# YAML


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


# Policies


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


def damaged_text(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A text with changed words."""
    how, text = mutated_text(good.read_text(), random_)
    path = folder / good.name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return how, path


def check_policy(path: Path) -> None:
    """Resolves a preset and plans a run by it."""
    text = path.read_text()
    resolve(text)
    _planned(text)


# Queues


def good_queues(folder: Path) -> list[Path]:
    """A queue with jobs in several states."""
    from hgc_video.jobs.add_jobs import NewJob, add_jobs

    queue = Queue(folder / "batch")
    add_jobs(
        queue, [NewJob(f"{n}.mp4", {"prompt": {"0": n}, "seed": 1}, n * 8, "m") for n in "abcdef"]
    )
    job = queue.claim("w")
    assert job is not None
    queue.fail(job, "it failed")
    queue.table.execute("PRAGMA journal_mode = DELETE")
    queue.close()
    shutil.move(folder / "batch" / FILE, folder / FILE)
    return [folder / FILE]


def damaged_queue(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A queue with mutated bytes, or whose table says something odd."""
    if random_.random() < 0.6:
        return damaged_bytes(good, folder, random_)
    path = folder / FILE
    shutil.copy(good, path)
    table = sqlite3.connect(path)
    columns = [row[1] for row in table.execute("PRAGMA table_info(jobs)")]
    values = [
        0,
        -1,
        2**62,
        "",
        "../../x.mp4",
        "/etc/x.mp4",
        "{",
        "[]",
        "null",
        b"\xff\x00",
        1e308,
        "queued",
    ]
    column, value = random_.choice(columns), random_.choice(values)
    try:
        table.execute(
            f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, random_.randrange(1, 5))
        )
        table.commit()
    except sqlite3.Error:
        table.execute(
            random_.choice(
                (
                    "DROP TABLE jobs",
                    "DROP TABLE history",
                    "DELETE FROM jobs",
                    "PRAGMA user_version = 7",
                )
            )
        )
        table.commit()
    table.close()
    return f"{column}={value!r}", path


def check_queue(path: Path) -> None:
    """Asks a queue for everything, and works jobs off in it; results stay in its folder."""
    from hgc_video.jobs.queue import Result

    queue = Queue(path.parent)
    status_of(queue, time.time())
    json.dumps(rows_of(queue), default=str)
    queue.recover()
    queue.retry_failed()
    part = path.parent / "part"
    for _ in range(8):
        job = queue.claim("w")
        if job is None:
            break
        assert isinstance(job.options, dict)
        queue.beat({job.claim: (1, 2)})
        part.write_bytes(b"clip")
        target = (path.parent / job.name).resolve()
        assert target.is_relative_to(path.parent.resolve()), f"{job.name} leads out"
        queue.finish(job, part, Result("d", 1.0, 0.5))
    queue.close()


# Models


def good_models(folder: Path) -> list[Path]:
    """A model in single files: checkpoint, motion adapter, ControlNet, VAE, LoRA; and as a folder."""
    from tests.models.test_own_models import Files

    own = Files(folder)
    check_model(folder)  # what is loaded here is there in every fork
    names = (own.checkpoint, own.motion, own.controlnets["pose"], own.lora)
    configs = [path for path in own.configs.rglob("*.json") if path.is_file()]
    return [*map(Path, names), *configs]


def damaged_model(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """The files of a model, one of them damaged: its bytes, its header, or a value of its configuration."""
    root = next(parent for parent in good.parents if (parent / "style.safetensors").is_file())
    own = folder / good.relative_to(root)
    shutil.copytree(root, folder, dirs_exist_ok=True, copy_function=_linked)
    own.unlink()
    if good.suffix == ".json" and random_.random() < 0.7:
        how, data = mutated_data(json.loads(good.read_text()), random_)
        own.write_text(json.dumps(data))
    elif good.suffix == ".safetensors" and random_.random() < 0.6:
        how = _damaged_header(good, own, random_)
    else:
        how, data = mutated(good.read_bytes(), random_)
        own.write_bytes(data)
    return f"{good.name}: {how}", folder


def _linked(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _damaged_header(good: Path, path: Path, random_: random.Random) -> str:
    """Changes the header of a safetensors file as data: names, shapes, types, offsets."""
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    how, header = mutated_data(json.loads(data[8 : 8 + length]), random_)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return f"header {how}"


def check_model(folder: Path) -> None:
    """Loads the pipeline that the files are."""
    base = str(folder / "style.safetensors")
    parts = ModelParts(
        base=base, base_config=str(folder / "configs"), motion_adapter=str(folder / "mm.safetensors"),
        controlnets=(("pose", str(folder / "pose.safetensors")),),
        loras=((str(folder / "lora.safetensors"), 0.5),),
    )  # fmt: skip
    read_facts(base, parts, offline=True)
    pipe = load_pipeline(base, "pose", parts=parts, offline=True)
    assert not pipe.unet.training


SUBJECTS: dict[str, Subject] = {
    "movies": Subject(good_movies, damaged_bytes, check_clip, 15),
    "images": Subject(good_images, damaged_bytes, check_clip, 4),
    "sound": Subject(good_sounds, damaged_bytes, check_sound, 1),
    "configurations of clips": Subject(
        good_configurations, damaged_configuration, check_configuration, 2, False
    ),
    "shot files": Subject(good_shots, damaged_yaml, check_shot, 3),
    "job lists": Subject(good_lists, damaged_yaml, check_list, 2),
    "schedules": Subject(good_schedules, damaged_yaml, check_schedule, 2),
    "calibrations": Subject(good_calibrations, damaged_yaml, check_calibration, 1),
    "policies": Subject(good_policies, damaged_text, check_policy, 2, False),
    "queues": Subject(good_queues, damaged_queue, check_queue, 2, False),
    "models": Subject(good_models, damaged_model, check_model, 3, False),
}

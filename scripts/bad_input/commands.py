"""Command lines: good ones of every command that ends by itself, and how a changed one must end.

The page (`ui`) has no end, and `batch` begins processes of its own; its `--status` and what it refuses are
here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.media.video import read_frames, write_video

ROOT = Path(__file__).resolve().parents[2]
_SMALL = "--num-frames 2 --num-inference-steps 1 --height 64 --width 64"
_TUNED = "--count 1 --num-frames 1"
_COMPARED = "--num-inference-steps 2 --converged-steps 0 --no-controls --clips 1 --num-frames 1"
# Without these the work is only longer.
_SHORTEN = {*_SMALL.split(), *_TUNED.split(), *_COMPARED.split(), "--judgements"}
# Each in a folder that holds what `good_commands` puts there.
_GOOD = (
    f"generate --pose pose.mp4 --prompt dancer --out made.mp4 --quiet {_SMALL}",
    f"generate --depth pose.mp4 --prompt dancer --out made.mp4 --work own {_SMALL} --preset deepcache",
    "extract pose.mp4 --kind canny --out lines.mp4",
    "show clip.mp4",
    "resume work",
    "cache",
    "init pose.mp4 --out other.yaml",
    "run shot.yaml --out made.mp4",
    "batch jobs.yaml --status",
    "schema",
    "plan --preset balanced --num-frames 4 --num-inference-steps 8 --step 3",
    "plan --model animatediff --preset fast --num-frames 16 --memory 8GiB",
    "policies hgc",
    "models",
    "doctor",
    f"calibrate --out c.yaml --folder kept --num-inference-steps 2 {_TUNED}",
    f"search --calibration two.yaml --budget 0.6 --out s.yaml --memory j.jsonl --judgements 1 {_TUNED}",
    f"compare --methods fast --memory m.jsonl {_COMPARED}",
)
_NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1000000000",
    "-1000000000",
    "9" * 30,
    "1.5",
    "nan",
    "inf",
    "1e400",
)
_TEXTS = (
    "", " ", ".", "..", "/", "pipe", "none", "none.mp4", "pose.mp4", "clip.mp4", "shot.yaml",
    "samples.yaml", "made.mp4", "work", "=", ":", ",", "a=b", "0:2", "2:1", "0-1", "é", "\U0001d7db",
    "a" * 300, "%s{}", "--help",
    "pose=pose.mp4", "balanced", "hgc:interval=0", "guard+guard", "float16", "cpu", "cuda:7", "8GiB", "-1GiB",
    "https://example.invalid/a.mp4", "puppet", "sd15", "EulerDiscreteScheduler", "F" * 30,
)  # fmt: skip


def good_commands(folder: Path) -> list[Path]:
    """Command lines, a file each, beside a folder of what they read."""
    torch.set_num_threads(1)  # a fork has no other threads than its own
    files = folder / "files"
    files.mkdir()
    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(6))[:, ::2, ::2]
    write_video(files / "pose.mp4", frames, 8)
    os.chdir(files)
    for line in (
        f"generate --pose pose.mp4 --prompt dancer --out clip.mp4 --quiet {_SMALL} --work work",
        "calibrate --out two.yaml --folder kept --num-inference-steps 2 --count 1 --num-frames 1",
        f"search --calibration two.yaml --budget 0.6 --out s.yaml --memory kept/j --judgements 1 {_TUNED}",
        f"compare --methods fast --memory kept/m {_COMPARED}",
        "init pose.mp4 --out shot.yaml",
    ):
        code, told = _called(line.split())
        assert code == 0, f"{line}: {told}"
    shutil.rmtree(files / "kept")
    job = {
        "control": {"pose": "pose.mp4"},
        "prompt": "dancer",
        "num_frames": 2,
        "num_inference_steps": 1,
    }
    (files / "jobs.yaml").write_text(json.dumps({"jobs": [job]}))
    (files / "samples.yaml").write_text(json.dumps([{"control": "pose.mp4", "prompt": "dancer"}]))
    made = []
    for number, line in enumerate(_GOOD):
        made.append(folder / f"{number:02}-{line.split()[0]}.json")
        made[-1].write_text(json.dumps(line.split()))
    return made


def damaged_command(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """One to three changes: an option that is added, given another value, or left out; an argument more."""
    line: list[str] = json.loads(good.read_text())
    how = []
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        how.append(_changed(line, random_))
    shutil.copytree(good.parent / "files", folder, dirs_exist_ok=True)
    os.mkfifo(folder / "pipe")
    path = folder / good.name
    path.write_text(json.dumps(line))
    return f"{line[0]}: {', '.join(how)}"[:200], path


def _changed(line: list[str], random_: random.Random) -> str:
    options = [p for p in app_command(line[0]).params if p.param_type_name == "option"]
    given = [at for at, word in enumerate(line) if word.startswith("--")]
    kind = random_.choice(("add", "add", "add", "change", "change", "remove", "more"))
    if options and (kind == "add" or not given):
        option = random_.choice(options)
        words = [random_.choice([*option.opts, *option.secondary_opts])]
        if not option.is_flag:
            words.append(_value(option, random_))
        line.extend(words)
        return " ".join(words)
    if not given or kind == "more":
        line.insert(1, random_.choice(_TEXTS))
        return line[1]
    at = random_.choice(given)
    has_value = at + 1 < len(line) and not line[at + 1].startswith("--")
    if kind == "remove" and line[at] not in _SHORTEN:
        removed = line[at : at + 1 + has_value]
        del line[at : at + 1 + has_value]
        return f"without {' '.join(removed)}"
    option = next((o for o in options if line[at] in (*o.opts, *o.secondary_opts)), None)
    if option is None:  # a text that was put there
        del line[at]
        return "without it"
    line[at + 1 : at + 1 + has_value] = [_value(option, random_)]
    return f"{line[at]} {line[at + 1]}"


def _value(option: Any, random_: random.Random) -> str:
    numeric = option.type_descriptor.annotation in (int, float, int | None, float | None)
    common = _NUMBERS if numeric else _TEXTS
    return random_.choice(common if random_.random() < 0.9 else (*_NUMBERS, *_TEXTS))


def app_command(name: str) -> Any:
    """A command with its options, as typer knows it."""
    import typer.main

    group: Any = typer.main.get_command(app)
    return group.commands[name].loaded()


def check_command(path: Path) -> None:
    """Runs a command line in its folder: exit code 0, or 2 with one line of an error and no new files, which
    is an InputError here."""
    os.chdir(path.parent)
    os.environ["HGC_VIDEO_HOME"] = str(path.parent / "home")
    before = _files(path.parent)
    code, told = _called(json.loads(path.read_text()))
    assert code in (0, 2), f"exit code {code}: {told[-300:]}"
    made = [
        str(name) for name, content in _files(path.parent).items() if before.get(name) != content
    ]
    assert code == 0 or not made, f"{told[-200:]} and yet there are {made}"
    if code == 2:
        by_typer = "Usage:" in told or "─ Error ─" in told
        assert by_typer or (told.count("error: ") == 1 and told.endswith("\n")), told[-300:]
        raise InputError(" ".join(told.split()))


def _files(folder: Path) -> dict[Path, bytes]:
    home = folder / "home"
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(home)
    }


def _called(line: list[str]) -> tuple[int, str]:
    """Exit code and standard error of a command line in this process."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            app(line, prog_name="hgc-video")
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()

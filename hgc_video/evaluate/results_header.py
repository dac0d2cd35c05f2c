"""What every file of results says of how it was measured: model, commit, command, machine, date, clips and
noises. A picture carries the same as text."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import complete_or_gone, write_text
from ..models.identity import model_hash

FIELDS = (
    "model", "model_hash", "commit", "command", "machine", "threads", "processes", "date", "seeds", "clips",
)  # fmt: skip
_CODE = (
    "hgc_video",
    "scripts",
)  # what a figure depends on; results and pages may differ from the commit
_PNG_KEY = "hgc_video"


def results_header(
    model: str | None, *, clips: int | None = None, seeds: int | None = None, processes: int = 1
) -> dict[str, Any]:
    """The header of results that are being measured here and now.

    model: as `load_pipeline` takes it; None where no weights take part. clips, seeds: how many clips and how
    many noises of each. processes: of `threads` threads each. commit: of the checkout, with a `+` where its
    code was changed since; None in an installation.
    """
    import torch

    told = {
        "model": model, "model_hash": model_hash(model) if model else None, "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), "machine": machine(),
        "threads": 1 if processes > 1 else torch.get_num_threads(), "processes": processes,
        "date": datetime.now(UTC).date().isoformat(), "seeds": seeds, "clips": clips,
    }  # fmt: skip
    return {name: told[name] for name in FIELDS}


def write_results(path: Path, header: dict[str, Any], **data: Any) -> None:
    """Writes a JSON file of results under its header; every row of a table has one line."""
    fields = {"header": header, **data}
    parts = [f" {json.dumps(name)}: {_laid_out(value)}" for name, value in fields.items()]
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _laid_out(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
    return f"[\n{rows}\n ]"


def save_png(picture: Image.Image, path: Path, header: dict[str, Any]) -> None:
    """Writes a picture that carries its header."""
    text = PngInfo()
    text.add_text(_PNG_KEY, json.dumps(header))
    with complete_or_gone(path) as part:
        picture.save(part, "PNG", optimize=True, pnginfo=text)


def png_header(path: Path) -> dict[str, Any]:
    """The header of a picture; InputError where it carries none."""
    with Image.open(path) as picture:
        told = picture.info.get(_PNG_KEY)
    if told is None:
        raise InputError(f'"{path}" carries no header; make it again with scripts/reproduce')
    return dict(json.loads(told))


def machine() -> dict[str, Any]:
    """The processor by name, and how many cores this process may use."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": _cores()}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None
    head = _git(root, "rev-parse", "--short=10", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *_CODE)
    return head and head + "+" * bool(changed)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

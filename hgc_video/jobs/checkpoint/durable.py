"""Files that outlive a crash: written, synced to the disk, and moved to their place when complete."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...errors import InputError
from ...files import sha256_of, unwritable
from ...plain_data import HALVES, parse_json

COMPLETE = "COMPLETE"  # the file that is written last: every other file's bytes and checksum


@contextmanager
def durable_folder(target: Path) -> Iterator[Path]:
    """A folder to write files to, which takes the target's place at the end of the block, once all of it is
    on the disk; its file COMPLETE is written last.

    Raises:
        InputError: the place cannot be written, the disk is full.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        listed = {path.name: _facts(path) for path in sorted(part.iterdir())}
        for name in listed:
            sync(part / name)
        (part / COMPLETE).write_text(json.dumps(listed, indent=1))
        sync(part / COMPLETE)
        sync(part)
        part.rename(target)
        sync(target.parent)
    except OSError as error:
        raise unwritable(target, error, InputError) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fault_of(folder: Path) -> str | None:
    """What is wrong with a folder that `durable_folder` wrote; None where it is whole."""
    try:
        listed = parse_json((folder / COMPLETE).read_text())
        for name, facts in listed.items():
            if _facts(folder / name) != facts:
                return f"{name} is not what was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"it is not complete ({error})"
    return None


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file that is there as a whole or not at all; InputError where that cannot be done."""
    part = path.with_name(f".{path.name}.part")
    try:
        text = json.dumps(data, indent=1, ensure_ascii=False)
        part.write_text(text, encoding="utf-8", errors=HALVES)
        sync(part)
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error, InputError) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none that can be read."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file; OSError where that cannot be done."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # what safetensors makes of the system's errors
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _facts(path: Path) -> dict[str, Any]:
    return {"nbytes": path.stat().st_size, "sha256": sha256_of(path)}

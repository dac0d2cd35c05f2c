"""What this installation can do: packages, extras, devices, the embedded model.

Looks and reports, with the command that mends what is missing; changes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from ..errors import HGCVideoError

_DISTRIBUTION = "hgc-video"
_SHOWN = (
    "torch", "diffusers", "transformers", "accelerate", "numpy", "av", "typer",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `remedy` is a command or an advice where one is needed."""

    section: str
    name: str
    value: str
    ok: bool = True
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything worth knowing; imports torch for the devices."""
    return [*_packages(), *_extras(), *_devices(), *_model()]


def nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed, asked without torch."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def install_command(extra: str = "") -> str:
    """The pip command that installs this package again, from where it came, with an extra."""
    python = sys.executable or "python"
    suffix = f"[{extra}]" if extra else ""
    checkout = _checkout()
    what = f'-e "{checkout}{suffix}"' if checkout else f'"{_DISTRIBUTION}{suffix}"'
    return f"{python} -m pip install {what}"


def _packages() -> Iterator[Finding]:
    yield Finding("packages", "python", f"{platform.python_version()} ({platform.platform()})")
    for name in (_DISTRIBUTION, *_SHOWN):
        version = _version(name)
        if version:
            yield Finding("packages", name, version)
        else:
            yield Finding("packages", name, "missing", ok=False, remedy=install_command())


def _extras() -> Iterator[Finding]:
    wanted = [Requirement(line) for line in _requires()]
    for extra in _extra_names():
        needed = [r for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
        missing = [r.name for r in needed if not _version(r.name)]
        # A requirement of the extra that holds on another Python only: nothing to install here.
        elsewhere = [r.name for r in wanted if _names(r, extra) and r not in needed]
        if missing:
            remedy = install_command(extra)
            yield Finding("extras", extra, f"lacks {', '.join(missing)}", False, remedy)
        elif elsewhere and not needed:
            here = f"{sys.version_info.major}.{sys.version_info.minor}"
            value = f"{', '.join(elsewhere)} does not exist for Python {here}"
            yield Finding("extras", extra, value, False, "use another Python, such as 3.12")
        else:
            yield Finding("extras", extra, "complete")


def _devices() -> Iterator[Finding]:
    driver = nvidia_driver()
    yield Finding("devices", "NVIDIA driver", "found" if driver else "none")
    yield Finding("devices", "cpu", f"{os.cpu_count()} cores")
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        yield Finding("devices", "torch", f"does not load: {reason}", False, install_command())
        return
    yield Finding("devices", "threads", f"{torch.get_num_threads()} (OMP_NUM_THREADS changes it)")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(
            "devices", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
        )
    if driver and not torch.cuda.is_available():
        remedy = "install a CUDA build of torch: https://pytorch.org/get-started"
        yield Finding("devices", "cuda", "a driver, but torch cannot use it", False, remedy)


def _model() -> Iterator[Finding]:
    from ..models.load import EMBEDDED, EMBEDDED_CONTROLS, model_folder

    try:
        folder = model_folder(EMBEDDED)
    except HGCVideoError as error:
        yield Finding("models", EMBEDDED, str(error), False, _restore_command())
        return
    missing = [name for name in EMBEDDED_CONTROLS if not (folder / f"controlnet_{name}").is_dir()]
    if missing:
        value = f"without control by {' and '.join(missing)}"
        yield Finding("models", EMBEDDED, value, False, _restore_command())
        return
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    yield Finding("models", EMBEDDED, f"complete, {nbytes / 1e6:.0f} MB in {folder}")


def _restore_command() -> str:
    checkout = _checkout()
    if checkout is None:
        return f"{install_command()} --force-reinstall --no-deps"
    return f'git -C "{checkout}" restore hgc_video/puppet/weights'


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _requires() -> list[str]:
    try:
        return metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def _extra_names() -> list[str]:
    try:
        return metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def _names(requirement: Requirement, extra: str) -> bool:
    marker = str(requirement.marker or "")
    return f'extra == "{extra}"' in marker


def _checkout() -> Path | None:
    """The folder this package is installed from in editable form, if it is."""
    try:
        text = metadata.distribution(_DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return Path(__file__).resolve().parents[2]
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(__file__).resolve().parents[2]

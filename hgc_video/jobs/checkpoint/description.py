"""What a run makes, of what, and with what: as JSON, compared, and turned into options again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, StateError
from ...files import kept_sha256_of, unwritable, user_path, without_home
from ...models.identity import fingerprint
from ...models.parts import ModelParts
from ...options import LOADING, GenerateOptions
from ...plan.presets import policy_files_here
from .job_file import check_job

# Options that do not change what is made, and clips, which are compared by what is in them.
_IMAGES = ("image", "ip_adapter")
_CLIPS = ("image", "video", "ip_adapter", "scenes_of")
_PARTS = (*(name for name in LOADING if name not in ("device", "dtype", "offline")),)
_ASIDE = frozenset(
    ("out", "work", "checkpoint_every_s", "devices", "offline", "calibration_dir", "control_video", "control",
     *_CLIPS, *_PARTS)
)  # fmt: skip
_MADE_BY = ("hgc-video", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Description:
    """`options` by name, as plain data; checksums of the `inputs` by kind ("pose", "image") and of the
    `model`'s parts; `versions` of what computes."""

    options: dict[str, Any]
    inputs: dict[str, str]
    model: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def of(cls, options: GenerateOptions) -> Description:
        """The description of a run whose options are decided. InputError where a clip in memory cannot be
        written to a work folder."""
        read = [*_inputs(options), *policy_files_here(options.preset).items()]
        inputs = {kind: _input_checksum(kind, given) for kind, given in read}
        versions = {name: metadata.version(name) for name in _MADE_BY}
        made_of = fingerprint(options.model, options.control_kinds, ModelParts.of(options))
        return cls(_told(options), inputs, made_of, versions)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Description:
        """The description that `to_dict` told, maybe beside other data; StateError where some of it lacks,
        or is something else."""
        check_job(told)
        return cls(**{field.name: told[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """A checksum of everything that decides what is made."""
        told = [self._compared, list(self.inputs.items()), self.model, self.versions]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def _compared(self) -> dict[str, Any]:
        compared = {name: value for name, value in self.options.items() if name not in _ASIDE}
        if loras := self.options.get("lora"):  # its files are compared as parts of the model
            compared["LoRA scales"] = list(loras.values())
        return compared

    def changes_to(self, other: Description) -> list[str]:
        """What is another in `other`, each in half a sentence."""
        told = [f"{n} was {a}, is {b}" for n, a, b in _differing(self._compared, other._compared)]
        for kind, before, now in _differing(self.inputs, other.inputs):
            missing = "was not given" if before is None else "is not given" if now is None else None
            told.append(f"the {kind} input {missing or 'changed'}")
        if list(self.inputs) != list(other.inputs) and set(self.inputs) == set(other.inputs):
            told.append("the controls have another order")
        if self.model != other.model:
            parts = ", ".join(name for name, *_ in _differing(self.model, other.model))
            names = [one.options["model"] for one in (self, other)]
            moved = f" ({names[0]}, now {names[1]})" if names[0] != names[1] else ""
            told.append(f"the model{moved} has another {parts}")
        told += [f"{n} was {a}, is {b}" for n, a, b in _differing(self.versions, other.versions)]
        return told

    def given(self, folder: Path) -> dict[str, Any]:
        """The options as `generate` takes them, of a work folder; StateError where a clip that is kept there
        cannot be read."""
        options = dict(self.options)
        control = {kind: _restored(told, folder) for kind, told in options.pop("control").items()}
        for name in _CLIPS:
            options[name] = _restored(options[name], folder)
        if isinstance(options["prompt"], list):
            options["prompt"] = dict(options["prompt"])
        return {**options, "control": control}


def keep_inputs(options: GenerateOptions, folder: Path) -> None:
    """Writes inputs that are in memory to a work folder; InputError where that cannot be done."""
    for kind, given in _inputs(options):
        if not isinstance(given, str | os.PathLike):
            path = folder / _file_of(kind)
            try:
                np.save(path, _frames(kind, given), allow_pickle=False)
            except OSError as error:
                raise unwritable(path, error, InputError) from error


def _inputs(options: GenerateOptions) -> Iterator[tuple[str, Any]]:
    for name, given in options.inputs.items():
        yield name.removeprefix("control."), given


def _told(options: GenerateOptions) -> dict[str, Any]:
    """Every option as JSON has it, paths in full but for the user's home, which is `~`."""
    told = {name: _plain(getattr(options, name)) for name in type(options).model_fields
            if name not in ("control_video", "control", "work", *_CLIPS)}  # fmt: skip
    told["control"] = {kind: _reference(kind, c) for kind, c in options.control_clips.items()}
    for name in _CLIPS:
        given = getattr(options, name)
        told[name] = None if given is None else _reference(name, given)
    for name in _PARTS:
        told[name] = _placed(told[name])
    told["lora"] = {_placed(file): float(scale) for file, scale in options.loras.items()} or None
    for name in ("out", "calibration_dir", "audio"):
        if isinstance(told[name], str):
            told[name] = _absolute(told[name])
    told["preset"] = without_home(told["preset"])
    if isinstance(options.prompt, Mapping):
        told["prompt"] = [[frame, text] for frame, text in sorted(options.prompt.items())]
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return str(value)
    return float(value) if isinstance(value, np.floating) else value


def _placed(value: Any) -> Any:
    """What names files or folders that are there with their paths in full; repositories stay as they are."""
    if isinstance(value, Mapping):
        return {key: _placed(inner) for key, inner in value.items()}
    if isinstance(value, str) and user_path(value).exists():
        return _absolute(value)
    return value


def _reference(kind: str, given: Any) -> dict[str, str]:
    if isinstance(given, str | os.PathLike):
        return {"path": _absolute(given)}
    return {"kept": _file_of(kind)}


def _restored(told: Mapping[str, str] | None, folder: Path) -> Any:
    if told is None:
        return None
    if "path" in told:
        return told["path"]
    path = folder / Path(told["kept"]).name  # of no other folder
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StateError(f'"{path}" cannot be read ({error}); begin the run anew') from error


def _file_of(kind: str) -> str:
    return f"input-{kind}.npy"


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(without_home(str(user_path(path).absolute())))


def _input_checksum(kind: str, given: Any) -> str:
    """As of a clip in a file, so that its bytes count and not its name."""
    if isinstance(given, str | os.PathLike):
        return kept_sha256_of(user_path(given))
    frames = _frames(kind, given)
    return hashlib.sha256(f"{frames.shape}".encode() + frames.tobytes()).hexdigest()


def _frames(kind: str, given: Any) -> NDArray[np.uint8]:
    """An input in memory as one array; InputError where it is no plain frames."""
    one = kind in _IMAGES
    try:
        frames = np.asarray(given if one else np.stack([np.asarray(frame) for frame in given]))
    except (TypeError, ValueError):
        frames = np.empty(0)
    if frames.dtype != np.uint8 or frames.ndim != (3 if one else 4):
        raise InputError(
            f"work cannot keep this {kind} clip, which is in memory; give a file, or frames (f H W 3) uint8"
        )
    checked: NDArray[np.uint8] = frames
    return checked


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in [*one, *(name for name in other if name not in one)]:
        before, now = one.get(name), other.get(name)
        if before != now:
            yield name, _quoted(before), _quoted(now)


def _quoted(value: Any) -> Any:
    return f'"{value}"' if isinstance(value, str) else value

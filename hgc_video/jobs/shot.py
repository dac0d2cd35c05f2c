"""Shot files: the options of one `generate` call as YAML, with paths relative to the file.

Knows the list of options and nothing of how they are carried out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import HGCVideoError, InputError, nearest
from ..files import resolved, user_path
from ..options import GenerateOptions
from ..plain_data import is_whole
from ..plan.presets import POLICY_FILE
from .yaml_file import parse_yaml, read_yaml

_READ = ("control_video", "image", "video", "ip_adapter", "audio", "scenes_of")
_WRITTEN = ("out", "work", "calibration_dir")
_PARTS = ("model", "base", "base_config", "motion_adapter", "vae", "ip_adapter_model")
_TEXTS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Shot:
    """What a shot file says: options of `generate`, their paths made absolute. `name` is the file's stem."""

    name: str
    options: Mapping[str, Any]
    path: Path | None = None

    def with_options(self, options: Mapping[str, Any]) -> Shot:
        """The shot with other options where some are given; their paths are relative to where we are."""
        placed = place_paths(options, Path.cwd(), allow_outside=True)
        return replace(self, options={**self.options, **placed})

    def with_settings(self, settings: Iterable[str]) -> Shot:
        """The shot with settings of a command line, as "preset=fast" or "control.pose=other.mp4"."""
        options = dict(self.options)
        for setting in settings:
            key, value = parse_setting(setting)
            placed = place_paths(_nested(key, value), Path.cwd(), allow_outside=True)
            options = _merged(options, placed, setting)
        return replace(self, options=options)

    def checked(self) -> GenerateOptions:
        """The options, checked; InputError names the file."""
        return check_options(self.options, str(self.path or self.name))


def read_shot(path: str | os.PathLike[str], *, allow_outside: bool = False) -> Shot:
    """The shot of a YAML or JSON file, or of the configuration that a finished clip carries.

    Args:
        allow_outside: paths in the file may lead out of its folder.

    Raises:
        InputError: the file cannot be read, names an unknown option or a path outside of its folder.
    """
    file = user_path(path)
    if file.suffix.lower() not in _TEXTS:
        from ..sampling.configuration import options_of, read_configuration  # loads numpy

        return Shot(file.stem, options_of(read_configuration(file), file), file)
    told = read_yaml(file)
    return shot_of(told, file, file.stem, allow_outside=allow_outside)


def shot_of(told: Any, file: Path, name: str, *, allow_outside: bool = False) -> Shot:
    """The shot of a mapping that a file holds."""
    if not isinstance(told, Mapping):
        raise InputError(f"{file}: a shot is a mapping of options, as `preset: balanced`; see init")
    check_keys(told, str(file))
    map_inputs(told, lambda name, value: _check_input(file, name, value))
    try:
        placed = place_paths(told, file.absolute().parent, allow_outside=allow_outside)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return Shot(name, placed, file)


def _check_input(file: Path, name: str, value: Any) -> None:
    """InputError where what a file names as an input is no path: it holds no pictures."""
    if not (
        value is None or isinstance(value, str) or (name == "audio" and isinstance(value, bool))
    ):
        raise InputError(f"{file}: {name}={value!r} is not possible; give a path")


def check_keys(told: Mapping[Any, Any], where: str) -> None:
    """InputError where a key is no option, with the nearest that is one."""
    for key in told:
        if key not in GenerateOptions.model_fields:
            raise InputError(
                f'{where}: unknown option "{key}": {nearest(str(key), GenerateOptions.model_fields)}'
            )


def check_options(options: Mapping[str, Any], where: str) -> GenerateOptions:
    """The options, checked as `generate` checks them; InputError begins with `where` they stand."""
    check_keys(options, where)
    try:
        return GenerateOptions(**options)
    except HGCVideoError as error:
        raise type(error)(f"{where}: {error}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of "key=value"; numbers, true, false, null, [lists] and {mappings} are read as YAML,
    anything else is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f'--set "{text}" is not possible; write OPTION=VALUE, as preset=fast')
    return key.strip(), parse_value(value.strip())


def parse_value(text: str) -> Any:
    """A value of the command line."""
    if text.startswith(("[", "{", '"', "'")):
        return parse_yaml(text)
    try:
        value = parse_yaml(text)
    except InputError:
        return text
    return value if value is None or isinstance(value, bool | int | float) else text


def place_paths(options: Mapping[str, Any], folder: Path, *, allow_outside: bool) -> dict[str, Any]:
    """The options with every path in them absolute; relative ones are of `folder`.

    Raises:
        InputError: a path leads out of `folder`, and that is not allowed.
    """

    def place(name: str, path: Any) -> Any:
        if not isinstance(path, str | os.PathLike):
            return path
        full = folder / user_path(path)
        if not allow_outside and not _is_inside(full, folder):
            raise InputError(
                f'"{path}" of {name} lies outside of {folder}; move it there, or allow it with '
                "--allow-outside (allow_outside=True)"
            )
        return os.path.normpath(full)

    placed = map_inputs(options, place)
    for name in _WRITTEN:
        if name in placed:
            placed[name] = place(name, placed[name])
    if isinstance(prompt := placed.get("prompt"), Mapping):  # JSON has no numbers for keys
        placed["prompt"] = {
            int(frame) if is_whole(str(frame)) else frame: words for frame, words in prompt.items()
        }
    return _place_parts(placed, folder, place)


def _place_parts(
    options: dict[str, Any], folder: Path, place: Callable[[str, Any], Any]
) -> dict[str, Any]:
    """The options with the parts of a model placed that are files or folders; others name repositories."""

    def placed(name: str, part: Any) -> Any:
        return place(name, part) if isinstance(part, str) and _is_file(part, folder) else part

    changed = {name: placed(name, options[name]) for name in _PARTS if name in options}
    if isinstance(nets := options.get("controlnet"), Mapping):
        changed["controlnet"] = {kind: placed(f"controlnet.{kind}", n) for kind, n in nets.items()}
    if isinstance(loras := options.get("lora"), Mapping):
        changed["lora"] = {placed("lora", file): scale for file, scale in loras.items()}
    elif isinstance(loras, list):
        changed["lora"] = [placed("lora", file) for file in loras]
    elif loras is not None:
        changed["lora"] = placed("lora", loras)
    return {**options, **changed}


def map_inputs(options: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The options with `change(name, value)` in place of every value that may be a file which a run reads:
    clips, image, sound, and the schedules that a policy names."""
    changed = dict(options)
    for name in _READ:
        if name in changed:
            changed[name] = change(name, changed[name])
    if isinstance(control := changed.get("control"), Mapping):
        changed["control"] = {kind: change(f"control.{kind}", c) for kind, c in control.items()}
    if isinstance(preset := changed.get("preset"), str):
        changed["preset"] = POLICY_FILE.sub(lambda found: str(change("preset", found[0])), preset)
    return changed


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to a place in a folder, links followed."""
    return resolved(path).is_relative_to(resolved(folder))


def _is_file(part: str, folder: Path) -> bool:
    """Whether a part is named by its file or folder; `owner/name` may be one, or a repository of the hub."""
    if part.startswith((".", "~", "/")):
        return True
    named = "/" in part or part.endswith(".safetensors")  # a plain word is a model's name
    return named and (folder / user_path(part)).exists()


def _nested(key: str, value: Any) -> dict[str, Any]:
    """{"control": {"pose": value}} of "control.pose"."""
    name, dot, inner = key.partition(".")
    if not dot:
        return {name: value}
    return {name: {inner: value}}


def _merged(options: Mapping[str, Any], given: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """The options with those given; a dotted key changes one entry of a mapping."""
    ((name, value),) = given.items()
    if "." not in setting.partition("=")[0]:
        return {**options, name: value}
    there = options.get(name)
    if there is not None and not isinstance(there, Mapping):
        raise InputError(f'--set "{setting}" is not possible: {name} is {there!r}, no mapping')
    return {**options, name: {**(there or {}), **value}}

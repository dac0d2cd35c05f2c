"""A run's configuration as plain JSON: what a finished clip carries, and how options are made of it again.

It holds every option as it was decided, hashes of inputs and weights, versions and the steps; nothing of the
environment, and no path but a file's name as seen from the clip.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import kept_sha256_of, resolved, user_path
from ..media.metadata import read_text
from ..media.sources import images_in
from ..options import GenerateOptions
from ..plain_data import parse_json
from ..plan.presets import POLICY_FILE, policy_files

FORMAT = 1  # of what is written; a greater number is of a later version
# Where things lie on this machine and how a run was kept: the same clip is made without them.
_DROPPED = ("calibration_dir", "checkpoint_every_s", "device", "devices", "offline", "out", "work")
_IN_MEMORY = "in memory"
_TEXTS = ("prompt", "negative_prompt")
_SNAPSHOT = re.compile(r"models--(.+?)--(.+?)/snapshots/([^/]+)")
_INPUTS = ("control", "image", "video", "ip_adapter", "scenes_of", "audio")


def configuration(
    options: GenerateOptions, out: str | os.PathLike[str] | None,
    names: Mapping[str, str] | None = None, **told: Any,
) -> dict[str, Any]:  # fmt: skip
    """The configuration of a clip that is written to `out` (None: it is not known yet, so that files are
    told by name alone). `names` are those of files by their path (`names_of`), where who asked for the clip
    sees them otherwise than it is seen from `out`.

    `options` are plain values; those of files are in `files` too, by the option's name ("control.pose"): the
    file's name as seen from the clip, and the SHA-256 of its content. `told` is put in as it is: versions,
    hashes of the models, the steps.
    """
    given = {name: getattr(options, name) for name in type(options).model_fields}
    given |= {"control": options.control_clips, "control_video": None}
    name_of = _Naming(out, names or {})
    plain = options.to_dict() | {n: type(options).model_fields[n].default for n in _DROPPED}
    plain |= {"control": {}, "control_video": None}
    files: dict[str, dict[str, Any]] = {}
    for name, value in _leaves(given):
        if name.split(".")[0] in (*_DROPPED, *_TEXTS):
            continue
        if _is_path(value):
            files[name] = _file(name, value, name_of)
            _put(plain, name, files[name]["name"])
        elif name in options.inputs:
            from ..media.content import (
                content_of,
            )  # loads numpy, which who only reads need not wait for

            files[name] = {"name": _IN_MEMORY, "sha256": content_of(value)}
            _put(plain, name, _IN_MEMORY)
    for name, path in policy_files(options.preset).items():
        told_file = _file("preset", path, name_of)
        files[name] = {**told_file, "within": True}
        plain["preset"] = _with_file(plain["preset"], path, told_file["name"])
    for name, value in given.items():
        if isinstance(value, Mapping):
            files |= _file_keys(name, value, plain, name_of)
    return {"format": FORMAT, "options": plain, "files": files, **told}


def _file_keys(
    name: str, value: Mapping[Any, Any], plain: dict[str, Any], name_of: _Naming
) -> dict[str, dict[str, Any]]:
    """The files that are keys of a mapping, as of LoRA files to their scales; `plain` names them anew."""
    files = {}
    for number, key in enumerate(value):
        if name not in _TEXTS and _is_path(key):
            told = _file(name, key, name_of)
            files[f"{name}.{number}"] = {**told, "key": True}
            plain[name] = {told["name"] if k == str(key) else k: v for k, v in plain[name].items()}
    return files


def names_of(options: Mapping[str, Any], out: str | os.PathLike[str]) -> dict[str, str]:
    """The names of the files that options name, by their paths, as seen from a clip that will lie at `out`:
    for one that is made elsewhere, of copies of them."""
    name_of = _Naming(out, {})
    leaves = [
        value for name, value in _leaves(options) if name.split(".")[0] not in (*_DROPPED, *_TEXTS)
    ]
    keys = [
        key
        for name, value in options.items()
        if isinstance(value, Mapping) and name not in _TEXTS
        for key in value
    ]
    files = [os.fspath(value) for value in (*leaves, *keys) if _is_path(value)]
    files += policy_files(options.get("preset")).values()
    return {path: name_of(path) for path in files}


def read_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration that a finished clip carries.

    Raises:
        VideoError: there is no such file, or it is no clip.
        InputError: it carries none, or one of a later version.
    """
    return parsed(read_text(path) or "", path)


def parsed(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration that a text holds, found in the clip at `path`; InputError where it holds none."""
    try:
        found = parse_json(text)
        known = isinstance(found["options"], dict) and isinstance(found["format"], int)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(
            f'"{path}" carries no configuration of hgc_video: it was written with metadata=False '
            "(--no-metadata), or by another program"
        )
    if found["format"] > FORMAT:
        raise InputError(f'"{path}" was written by a later version of hgc_video; install that')
    return dict(found)


def options_of(found: Mapping[str, Any], beside: str | os.PathLike[str]) -> dict[str, Any]:
    """Options of `generate` of a configuration, files looked for beside the clip that carried it. They say
    nothing of where to write and where to run.

    Raises:
        InputError: a file is not there, or not the one that the clip was made of; the configuration is
            damaged.
    """
    try:
        return _options_of(found, beside)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f'the configuration that "{beside}" carries is damaged ({type(error).__name__}: {error}); '
            "name the options instead"
        ) from error


def _options_of(found: Mapping[str, Any], beside: str | os.PathLike[str]) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(json.dumps(found["options"]))
    options = {name: value for name, value in options.items() if name not in _DROPPED}
    if isinstance(options.get("prompt"), dict):
        options["prompt"] = {int(frame): text for frame, text in options["prompt"].items()}
    folder = user_path(beside).absolute().parent
    for name, file in found.get("files", {}).items():
        found_at = _found(name, file, folder)
        if file.get("within"):
            option = name.partition(".")[0]
            options[option] = _with_file(options[option], file["name"], found_at)
        elif file.get("key"):
            option, told = name.partition(".")[0], file["name"]
            options[option] = {found_at if k == told else k: v for k, v in options[option].items()}
        else:
            _put(options, name, found_at)
    return options


def _leaves(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value by its dotted name, those of mappings and lists each; frames and images stay whole."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        elif isinstance(value, list | tuple) and all(
            isinstance(v, str | os.PathLike) for v in value
        ):
            yield from ((f"{name}.{at}", inner) for at, inner in enumerate(value))
        else:
            yield name, value


def _put(options: dict[str, Any], name: str, value: Any) -> None:
    option, dot, key = name.partition(".")
    if not dot:
        options[option] = value
    elif isinstance(options[option], list):
        options[option][int(key)] = value
    else:
        options[option][key] = value


def _is_path(value: Any) -> bool:
    if isinstance(value, os.PathLike):
        return True
    if not isinstance(value, str):
        return False
    return value.startswith(("/", "~", "./", "../")) or user_path(value).is_file()


def _with_file(preset: str, before: str, now: str) -> str:
    """A text of policies with another name for one of its files."""
    return POLICY_FILE.sub(lambda found: now if found[0] == before else found[0], preset)


@dataclass(frozen=True)
class _Naming:
    """The names of files as seen from a clip; `given` are those that were decided elsewhere."""

    out: str | os.PathLike[str] | None
    given: Mapping[str, str]

    def __call__(self, path: str | os.PathLike[str]) -> str:
        """The name of the file at a path."""
        if os.fspath(path) in self.given:
            return self.given[os.fspath(path)]
        folder = None if self.out is None else user_path(self.out).absolute().parent
        return _seen_from(folder, user_path(path).absolute())


def _file(name: str, value: str | os.PathLike[str], name_of: _Naming) -> dict[str, str]:
    """A file's name as seen from the clip, and its hash; of a folder of weights the name alone."""
    repository = _SNAPSHOT.search(str(value))
    if repository:  # fetched from the hub: its name and commit there, not where it lies here
        owner, named, commit = repository.groups()
        return {"name": f"{owner}/{named}@{commit}"}
    path = user_path(value).absolute()
    told = {"name": name_of(value)}
    if path.is_file() or (path.is_dir() and name.split(".")[0] in _INPUTS):
        told["sha256"] = kept_sha256_of(path)
    return told


def _seen_from(folder: Path | None, path: Path) -> str:
    """The path from a folder to a file; the name alone where it would lead through the user's home."""
    if folder is None:
        return path.name
    try:
        shared = Path(os.path.commonpath([folder, path]))
    except ValueError:  # on another drive
        return path.name
    home = user_path("~").absolute()
    if shared == Path(shared.anchor) or (shared != home and home.is_relative_to(shared)):
        return path.name
    return Path(os.path.relpath(path, folder)).as_posix()


def _is_clip_folder(path: Path, folder: Path) -> bool:
    """Whether a path is a folder of frames; none is one that cannot be looked into, or that the clip's folder
    lies in."""
    if not path.is_dir() or resolved(folder).is_relative_to(resolved(path)):
        return False
    try:
        return bool(images_in(path))
    except OSError:
        return False


def _found(name: str, file: Mapping[str, Any], folder: Path) -> str:
    told: str = file["name"]
    user_path(told)  # refuses what no file is called
    if told == _IN_MEMORY:
        raise InputError(f"{name} was in memory and lies in no file; give it again")
    if "sha256" not in file:
        near = folder / told
        return str(near) if near.exists() else told
    for path in (folder / told, folder / Path(told).name, Path(told), Path(Path(told).name)):
        # Any other folder than one of frames may hold all of a disk.
        if (path.is_file() or _is_clip_folder(path, folder)) and kept_sha256_of(path) == file[
            "sha256"
        ]:
            return str(path)
    raise InputError(
        f'the file of {name}, "{told}", with the content that the clip was made of (SHA-256 '
        f"{file['sha256'][:12]}...) is not beside the clip; put it there, or name it"
    )

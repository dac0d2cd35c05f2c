"""The jobs of a batch: a list in YAML or a folder of shot files, times seeds, times values of options."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import HGCVideoError, InputError, at_least, nearest
from ..files import resolved, user_path
from ..plan.presets import resolve
from .add_jobs import NewJob
from .fingerprint import fingerprint_of, loading_of
from .result_names import check_pattern, default_pattern, result_name
from .shot import Shot, check_keys, parse_value, read_shot, shot_of
from .yaml_file import parse_yaml, read_yaml

_KEYS = ("jobs", "defaults", "matrix", "seeds", "name")
MOST_JOBS = 100_000


@dataclass(frozen=True)
class JobList:
    """The shots of a batch, and what each is varied in: so many seeds from its own on, values by option."""

    shots: tuple[Shot, ...]
    seeds: int = 1
    matrix: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    pattern: str | None = None

    def jobs(self) -> Iterator[NewJob]:
        """Every job, checked.

        Raises:
            InputError: options that are not possible, an input that is not there, two results of one name.
        """
        at_least("seeds", self.seeds, 1)
        values = math.prod(len(listed) for listed in self.matrix.values())
        if (count := len(self.shots) * values * self.seeds) > MOST_JOBS:
            raise InputError(f"{count} jobs are more than {MOST_JOBS}; make several batches")
        varied = [*self.matrix, *(["seed"] if self.seeds > 1 else [])]
        pattern = check_pattern(self.pattern or default_pattern(varied))
        taken: dict[str, str] = {}
        for number, shot in enumerate(self._variants(), 1):
            name = result_name(pattern, shot.name, number, shot.options)
            if name.casefold() in taken:  # one file on many disks
                raise InputError(
                    f'two jobs, of {taken[name.casefold()]} and of {shot.name}, would both be "{name}"; name '
                    "them otherwise with --name, as {name}-{number}"
                )
            taken[name.casefold()] = shot.name
            yield _job(shot, name)

    def _variants(self) -> Iterator[Shot]:
        for shot in self.shots:
            for values in itertools.product(*self.matrix.values()):
                varied = shot.with_options(dict(zip(self.matrix, values, strict=True)))
                for offset in range(self.seeds):
                    yield varied if self.seeds == 1 else varied.with_options(_seed(varied, offset))


def _seed(shot: Shot, offset: int) -> dict[str, int]:
    seed = shot.options.get("seed", 0)
    if not isinstance(seed, int):
        raise InputError(
            f"{shot.path or shot.name}: seed={seed} cannot be counted on; give a number"
        )
    return {"seed": seed + offset}


def _job(shot: Shot, name: str) -> NewJob:
    options = {key: value for key, value in shot.options.items() if key != "out"}
    checked = replace(shot, options=options).checked()
    if checked.devices > 1:
        raise InputError(
            f"{shot.path or shot.name}: a batch makes a clip on each device, and devices="
            f"{checked.devices} is given; leave it out"
        )
    try:
        resolve(checked.preset, checked.model)
    except HGCVideoError as error:
        raise type(error)(f"{shot.path or shot.name}: {error}") from error
    for clip in checked.inputs.values():
        if not Path(clip).exists():
            raise InputError(f'{shot.path or shot.name}: no file "{clip}"; check the path')
    return NewJob(name, options, fingerprint_of(checked), loading_of(checked))


def read_jobs(source: Path, *, allow_outside: bool = False) -> JobList:
    """The jobs of a list (a file with `jobs:`), of one shot file, or of all shot files in a folder.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        if not files:
            raise InputError(
                f'the folder "{source}" holds no shot files (.yaml); hgc-video init writes one'
            )
        return JobList(tuple(read_shot(path, allow_outside=allow_outside) for path in files))
    told = read_yaml(source)
    if not isinstance(told, Mapping) or "jobs" not in told:
        return JobList((shot_of(told, source, source.stem, allow_outside=allow_outside),))
    for key in told:
        if key not in _KEYS:
            raise InputError(f'{source}: unknown key "{key}": {nearest(str(key), _KEYS)}')
    defaults, listed = told.get("defaults") or {}, told["jobs"]
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{source}: jobs is a list of shots, as `- {{control: ..., prompt: ...}}`")
    shots = tuple(
        _listed(job, defaults, source, number, allow_outside)
        for number, job in enumerate(listed, 1)
    )
    matrix = _checked_matrix(told.get("matrix") or {}, str(source))
    return JobList(shots, told.get("seeds", 1), matrix, told.get("name"))


def _listed(job: Any, defaults: Any, file: Path, number: int, allow_outside: bool) -> Shot:
    """A shot of a list: a mapping of options, with `name`, or `shot` for a file whose options it changes."""
    where = f"{file}: job {number}"
    if not isinstance(job, Mapping) or not isinstance(defaults, Mapping):
        raise InputError(f"{where} and defaults are mappings of options, as `prompt: ...`")
    options = {**defaults, **job}
    name, shot = options.pop("name", None), options.pop("shot", None)
    check_keys(options, where)
    own = shot_of(options, file, str(name or f"job{number:04}"), allow_outside=allow_outside)
    if shot is None:
        return own
    path = resolved(file.absolute().parent / user_path(str(shot)))
    if not allow_outside and not path.is_relative_to(resolved(file.absolute().parent)):
        raise InputError(
            f'{where}: "{shot}" of shot lies outside of {file.parent}; see --allow-outside'
        )
    read = read_shot(path, allow_outside=allow_outside)
    return Shot(str(name or read.name), {**read.options, **own.options}, path)


def parse_matrix(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Values by option, of "preset=balanced,fast" or of "preset=[balanced, 'hgc:interval=3,depth=1']"."""
    matrix: dict[str, list[Any]] = {}
    for text in texts:
        option, equals, values = text.partition("=")
        if not equals or not values.strip():
            raise InputError(f'--matrix "{text}" is not possible; write OPTION=VALUE,VALUE')
        listed = (
            parse_yaml(values)
            if values.startswith("[")
            else list(map(parse_value, values.split(",")))
        )
        matrix.setdefault(option.strip(), []).extend(listed)
    return _checked_matrix(matrix, "--matrix")


def _checked_matrix(matrix: Any, where: str) -> dict[str, list[Any]]:
    if not isinstance(matrix, Mapping) or not all(
        isinstance(v, list) and v for v in matrix.values()
    ):
        raise InputError(
            f"{where}: matrix is lists of values by option, as preset: [balanced, fast]"
        )
    check_keys(matrix, where)
    if "out" in matrix:
        raise InputError(f'{where}: results are named by a pattern, with --name; leave "out" away')
    return dict(matrix)

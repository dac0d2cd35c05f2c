"""What job.json of a work folder holds, where it may be damaged: by a disk, or by hand."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ...errors import StateError


class _AtPath(TypedDict):
    path: str


class _Kept(TypedDict):
    kept: str


_Clip = _AtPath | _Kept


class _Options(TypedDict):
    """Those that are read again by more than their names; there are others beside them."""

    control: dict[str, _Clip]
    image: _Clip | None
    video: _Clip | None
    ip_adapter: _Clip | None
    scenes_of: _Clip | None
    prompt: str | list[tuple[int, str]]
    model: str
    lora: dict[str, float] | None


class _Job(TypedDict):
    options: _Options
    inputs: dict[str, str]
    model: dict[str, str]
    versions: dict[str, str]


_JOB = TypeAdapter(_Job)


def check_job(told: Any) -> None:
    """StateError where data are not what a run's description is written as, with the first that is not."""
    try:
        _JOB.validate_python(told)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"][:2])
        raise StateError(
            f"job.json is damaged ({where or 'all of it'}: {fault['msg']}); begin the run anew"
        ) from error

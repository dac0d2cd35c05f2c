"""Preprocessors by name, the text that calls them, and what is to be known of each as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError, nearest
from ..plan.policies.registry import split_fields
from .base import Preprocessor
from .canny import Canny
from .depth import Depth
from .lineart import Lineart
from .pose import Pose
from .rtmpose import RTMPose
from .softedge import SoftEdge

PREPROCESSORS: dict[str, type[Preprocessor]] = {
    made.name: made for made in (Pose, RTMPose, Depth, Canny, SoftEdge, Lineart)
}


def make_preprocessor(text: str) -> Preprocessor:
    """The preprocessor that `name:parameter=value,...` names; InputError says what is allowed."""
    name, _, given = text.strip().partition(":")
    return PREPROCESSORS[_known(name)](**split_fields(name, given))


def choose_preprocessors(
    extract: bool | str | Mapping[str, Any], kinds: Iterable[str]
) -> dict[str, Preprocessor]:
    """The preprocessor of each control kind that is to be extracted; a kind left out is a ready clip.

    `extract` is True for all kinds by their defaults, a text that names preprocessors, joined by "+", or
    what to extract by kind: True, False, a text, or a mapping of parameters.

    Raises:
        InputError: a kind that nothing extracts or no clip is given for; as `make_preprocessor`.
    """
    kinds = list(kinds)
    if isinstance(extract, bool):
        return {kind: make_preprocessor(_known(kind)) for kind in kinds if extract}
    made = _named(extract) if isinstance(extract, str) else _by_kind(extract)
    for kind, preprocessor in made.items():
        if kind not in kinds:
            raise InputError(
                f"extract names {preprocessor.name}, which makes {kind}, and no {kind} clip is given: "
                f"{nearest(kind, kinds)}"
            )
    return made


def listed() -> list[dict[str, Any]]:
    """Every preprocessor as plain data: name, kind of control, extra, what it does, and its parameters with
    type, default, minimum, maximum, choices and description (None: there is none)."""
    return [
        {
            "name": made.name,
            "control": made.control,
            "extra": made.extra or None,
            "about": (made.__doc__ or "").strip().splitlines()[0],
            "parameters": _parameters(made),
        }
        for made in PREPROCESSORS.values()
    ]


def _known(name: str) -> str:
    if name not in PREPROCESSORS:
        raise InputError(f'"{name}" cannot be extracted: {nearest(name, PREPROCESSORS)}')
    return name


def _named(text: str) -> dict[str, Preprocessor]:
    # A "+" in a path joins nothing: what follows must be a name.
    names = "|".join(map(re.escape, PREPROCESSORS))
    made: dict[str, Preprocessor] = {}
    for part in re.split(rf"\+(?=\s*(?:{names})\s*(?::|\+|$))", text):
        preprocessor = make_preprocessor(part)
        if preprocessor.control in made:
            raise InputError(f"extract names two for {preprocessor.control}; leave one out")
        made[preprocessor.control] = preprocessor
    return made


def _by_kind(given: Mapping[str, Any]) -> dict[str, Preprocessor]:
    made = {}
    for kind, told in given.items():
        if told is False:
            continue
        text = kind if told is True or isinstance(told, Mapping) else told
        if not isinstance(text, str):
            raise InputError(f"extract[{kind!r}]={told!r} is not possible; give True, False, a name "
                             "such as pose:hands=true, or parameters")  # fmt: skip
        preprocessor = make_preprocessor(text)
        if isinstance(told, Mapping):
            preprocessor = type(preprocessor)(**told)
        if preprocessor.control != kind:
            raise InputError(f"{preprocessor.name} makes {preprocessor.control}, not {kind}")
        made[kind] = preprocessor
    return made


def _parameters(made: type[Preprocessor]) -> list[dict[str, Any]]:
    told = []
    for name, field in made.model_json_schema()["properties"].items():
        low, high = field.get("minimum"), field.get("maximum")
        told.append(
            {
                "name": name,
                "type": field["type"],
                "default": field.get("default"),
                "minimum": field.get("exclusiveMinimum", low),
                "maximum": field.get("exclusiveMaximum", high),
                "choices": field.get("enum"),
                "description": field.get("description", ""),
            }
        )
    return told

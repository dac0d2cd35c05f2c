"""The JSON Schema of a shot file, made from the list of options: what editors complete and check."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from ..options import CONTROL_KINDS, DTYPES, GenerateOptions
from ..preprocess.registry import PREPROCESSORS

_PATH = {"type": "string"}
_PROMPT = {"type": "string", "minLength": 1}
_NUMBER = {"type": "number", "minimum": 0}
# pydantic leaves the bounds of optional numbers under its own names.
_BOUNDS = {
    "ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum",
}  # fmt: skip
_PREPROCESSORS = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "string", "pattern": f"^({'|'.join(PREPROCESSORS)})([:+]|$)"},
        {"type": "object", "propertyNames": {"enum": list(CONTROL_KINDS)}},
    ]
}
# What options that take objects in Python are in a file.
_IN_A_FILE: dict[str, dict[str, Any]] = {
    "control_video": _PATH,
    "control": {
        "anyOf": [
            {"enum": list(CONTROL_KINDS)},
            {
                "type": "object", "minProperties": 1, "additionalProperties": False,
                "properties": dict.fromkeys(CONTROL_KINDS, _PATH),
            },
        ]
    },
    "prompt": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object", "patternProperties": {"^[0-9]+$": _PROMPT},
                "additionalProperties": False, "minProperties": 1,
            },
        ]
    },
    "image": _PATH,
    "conditioning_scale": {
        "anyOf": [
            _NUMBER,
            {
                "type": "object", "additionalProperties": False,
                "properties": dict.fromkeys(CONTROL_KINDS, _NUMBER),
            },
        ]
    },
    "dtype": {"enum": [*DTYPES, None]},
    "extract": _PREPROCESSORS,
    "fidelity": _PREPROCESSORS,
    "audio": {"anyOf": [{"type": "boolean"}, _PATH]},
}  # fmt: skip


class _InAFile(GenerateJsonSchema):
    """Paths are text, and what takes anything is left open until its own form is put there."""

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:
        return dict(_PATH)


def shot_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a shot file: every option with its form, bounds, default and meaning."""
    made: dict[str, Any] = GenerateOptions.model_json_schema(schema_generator=_InAFile)
    for name, form in _IN_A_FILE.items():
        nullable = GenerateOptions.model_fields[name].default is None and "enum" not in form
        own = {"anyOf": [form, {"type": "null"}]} if nullable else form
        told = made["properties"][name]
        made["properties"][name] = {**own, **{k: told[k] for k in ("default", "description")}}
    for told in made["properties"].values():
        told.pop("title", None)
        for form in (told, *told.get("anyOf", ())):
            for bound in _BOUNDS.keys() & form.keys():
                form[_BOUNDS[bound]] = form.pop(bound)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "A shot of hgc-video",
        "description": "The options of one hgc_video.generate call; paths are relative to the file.",
    }

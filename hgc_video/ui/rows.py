"""Fields of several rows, as LoRAs with their scales: their columns, and the options that rows become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from ..options import CONTROL_KINDS, ImageMotion

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A value of a row. `kind` is video (an upload), weights (an upload, or the name of a file or
    repository), choice, number, whole number, long text or flag; a row without a needed one is refused."""

    name: str
    kind: str
    label: str
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    needed: bool = False


_KIND = Column("kind", "choice", "Kind", "pose", CONTROL_KINDS, needed=True)
_WEIGHTS = Column("file", "weights", "File", needed=True)
ROWS: dict[str, tuple[Column, ...]] = {
    "more_controls": (
        Column("clip", "video", "Clip", needed=True), _KIND,
        Column("raw", "flag", "A raw video: take the control from it", False),
        Column("strength", "number", "Strength", 1.0, minimum=0),
    ),
    "prompt_at": (
        Column("frame", "whole number", "From frame", minimum=1, needed=True),
        Column("text", "long text", "Prompt", needed=True),
    ),
    "controlnet": (_KIND, _WEIGHTS),
    "lora": (_WEIGHTS, Column("scale", "number", "Scale", 1.0)),
}  # fmt: skip


def columns_of(name: str) -> list[dict[str, Any]]:
    """The columns of a field as plain data; [] where it has none. Those of `motion` are one row."""
    if name == "motion":
        return [asdict(one) for one in _motion_columns()]
    return [asdict(one) for one in ROWS.get(name, ())]


def _motion_columns() -> list[Column]:
    told = ImageMotion.model_json_schema()["properties"]
    kinds = {"integer": "whole number", "number": "number"}
    return [
        Column(
            name, kinds[one["type"]], f"{name.replace('_', ' ').capitalize()}: {one['description']}",
            one["default"], minimum=one.get("minimum"), maximum=one.get("maximum"),
        )
        for name, one in told.items()
    ]  # fmt: skip


def with_rows(options: Mapping[str, Any], rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The options with what the rows of the form say.

    Raises:
        InputError: a row lacks something, or two are for the same; the message begins with the field.
    """
    made = dict(options)
    for name, given in rows.items():
        whole = [row for row in given if _is_filled(name, row)]
        if whole:
            _MAKES[name](made, whole)
    return made


def _is_filled(name: str, row: Row) -> bool:
    """Whether a row says anything; InputError where it lacks what it must say."""
    missing = [
        one.label.lower() for one in ROWS[name]
        if one.needed and one.default is None and one.name not in row
    ]  # fmt: skip
    if row and missing:
        raise InputError(f"{name}: a row has no {missing[0]}; give it, or remove the row")
    return bool(row)


def _by_key(
    name: str, rows: Sequence[Row], key: str, value: Callable[[Row], Any]
) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for row in rows:
        if row[key] in made:
            raise InputError(f"{name}: two rows are for {row[key]}; remove one")
        made[row[key]] = value(row)
    return made


def _add_prompts(options: dict[str, Any], rows: Sequence[Row]) -> None:
    later = _by_key("prompt_at", rows, "frame", lambda row: row["text"])
    options["prompt"] = {0: options.get("prompt", ""), **later}


def _add_loras(options: dict[str, Any], rows: Sequence[Row]) -> None:
    options["lora"] = _by_key("lora", rows, "file", lambda row: row.get("scale", 1.0))


def _add_controlnets(options: dict[str, Any], rows: Sequence[Row]) -> None:
    options["controlnet"] = _by_key(
        "controlnet", _with_kinds(rows), "kind", lambda row: row["file"]
    )


def _add_controls(options: dict[str, Any], rows: Sequence[Row]) -> None:
    """The controls beside the first one: all by their kinds, with how each is taken, and its strength."""
    rows = _with_kinds(rows)
    if "control_video" not in options:
        raise InputError("more_controls: the first control is missing; give it as the control clip")
    first = options.pop("control", "pose")
    if any(row["kind"] == first for row in rows):
        raise InputError(
            f"more_controls: two clips are for {first}; choose another kind, or remove one"
        )
    clips = _by_key("more_controls", rows, "kind", lambda row: row["clip"])
    options["control"] = {first: options.pop("control_video"), **clips}
    taken = {first: options.pop("extract", False)}
    taken |= {row["kind"]: bool(row.get("raw")) for row in rows}
    if any(taken.values()):
        options["extract"] = taken
    strengths = {first: options.pop("conditioning_scale", 1.0)}
    strengths |= {row["kind"]: row.get("strength", 1.0) for row in rows}
    if set(strengths.values()) != {1.0}:
        options["conditioning_scale"] = strengths


def _with_kinds(rows: Sequence[Row]) -> list[Row]:
    return [{"kind": _KIND.default, **row} for row in rows]


_MAKES: dict[str, Callable[[dict[str, Any], Sequence[Row]], None]] = {
    "more_controls": _add_controls, "prompt_at": _add_prompts, "controlnet": _add_controlnets,
    "lora": _add_loras,
}  # fmt: skip

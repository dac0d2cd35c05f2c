"""`hgc-video show`: the configuration that a finished clip carries, and what was computed at every step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, printable
from .shell import app, errors_in_one_line

_BAR = 24  # characters of a step that computes everything


@app.command(rich_help_panel="Clips")
def show(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A clip that generate wrote, or its folder of PNGs.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole configuration as JSON.")
    ] = False,
) -> None:
    """Prints how a finished clip was made: options, inputs, models, versions, the schedule step by step."""
    with errors_in_one_line(context):
        from ..sampling.configuration import read_configuration

        found = read_configuration(file)
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found, file)))


def lines(found: dict[str, Any], file: Path) -> list[str]:
    """What a configuration says, a line each, without what could steer the terminal.

    Raises:
        InputError: the configuration that `file` carries is damaged.
    """
    try:
        return [printable(line).replace("\n", "\\n") for line in _lines(found)]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f'the configuration that "{file}" carries is damaged ({type(error).__name__}: {error}); --json '
            "prints it as it is"
        ) from error


def _lines(found: dict[str, Any]) -> Iterator[str]:
    clip = found.get("clip")
    if clip:
        size = f"{clip['width']}x{clip['height']}"
        yield f"clip      {clip['num_frames']} frames of {size} at {clip['fps']:g} fps"
    yield from _titled("options", (f"{name} = {_told(v)}" for name, v in _given(found["options"])))
    files = found.get("files", {}).items()
    yield from _titled(
        "files", (f"{name}: {file['name']}  {_short(file.get('sha256'))}" for name, file in files)
    )
    models = found.get("models", {}).items()
    yield from _titled("models", (f"{name}  {_short(value)}" for name, value in models))
    versions = (f"{name} {version}" for name, version in found.get("versions", {}).items())
    yield f"versions  {', '.join(versions)}"
    yield from _titled("schedule", _chart(found.get("steps", [])))


def _given(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that are not as they are by default."""
    from ..options import GenerateOptions

    for name, value in options.items():
        field = GenerateOptions.model_fields.get(name)
        if field is None or value != field.default:
            yield name, value


def _told(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(sha256: str | None) -> str:
    return f"sha256 {sha256[:12]}" if sha256 else ""


def _titled(title: str, rows: Iterator[str]) -> Iterator[str]:
    """Rows under a title; nothing where there are none."""
    for number, row in enumerate(rows):
        yield f"{title if number == 0 else '':<8}  {row}".rstrip()


def _chart(steps: list[dict[str, Any]]) -> Iterator[str]:
    """A bar for each step: how much of the stock models it computed."""
    for step in steps:
        share = step["macs"] / step["macs_stock"]
        bar = ("█" * round(_BAR * min(1.0, share))).ljust(_BAR, "·")
        yield f"{step['step']:3d}  {bar} {100 * share:5.1f} %  {step['label']:<14}  {step['reason']}"

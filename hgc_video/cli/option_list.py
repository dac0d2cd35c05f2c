"""Command line options made from a model of options: one for each field, with its type and description."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def option(
    name: str, kind: Any, default: Any, help_text: str, panel: str | None = None
) -> inspect.Parameter:
    """One keyword parameter that typer shows as `--name`; a flag where `kind` is bool, and with `--no-name`
    where it is set by default, or neither. Help shows it under `panel`."""
    plain = name.replace("_", "-")
    two = default is True or kind == bool | None
    flag = (f"--{plain}/--no-{plain}",) if two else (f"--{plain}",)
    shown = help_text[:1].upper() + help_text[1:] + ("" if help_text.endswith(".") else ".")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(*flag, help=shown, rich_help_panel=panel)],
    )


def options_of(
    model: type[BaseModel],
    texts: Mapping[str, tuple[Any, Any]],
    without: Iterable[str] = (),
    panel_of: Callable[[str], str | None] = lambda name: None,
) -> list[inspect.Parameter]:
    """A parameter for each field of `model`.

    Args:
        texts: type and default on the command line of fields that are more than one number, text or flag.
        without: fields that have options of another form.
        panel_of: the heading that help shows a field under.
    """
    made = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        kind, default = texts.get(name) or (_plain_kind(name, field), field.default)
        made.append(option(name, kind, default, field.description or "", panel_of(name)))
    return made


def _plain_kind(name: str, field: FieldInfo) -> Any:
    """The type of a field as typer knows it."""
    kinds = {int: int | None, float: float | None, str: str | None}
    for kind, optional in kinds.items():
        if field.annotation == kind | None:
            return optional
        if field.annotation is kind:
            return kind
    if field.annotation in (bool, bool | None):
        return field.annotation
    args = getattr(field.annotation, "__args__", ())
    for kind, optional in kinds.items():  # Annotated[int, ...] | None
        if any(getattr(arg, "__origin__", None) is kind for arg in args):
            return optional
    raise TypeError(f"{name}: say in `texts` how {field.annotation} is given on the command line")


def with_parameters(
    command: Callable[..., None], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """`command(context, **given)` with the parameters that typer reads."""
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    every = [context, *parameters]
    command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in every}
    return command


PATH = (Path | None, None)
TEXT = (str | None, None)

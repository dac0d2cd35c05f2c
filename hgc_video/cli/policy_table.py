"""Policies and their fields as tables, made from the policies' own models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.table import Table

from ..plan.policies.base import Policy


def policies_table(policies: Iterable[type[Policy]]) -> Table:
    """A row for every policy: its name, its fields with defaults, what it does, where it was published."""
    table = Table("policy", "fields", "what it does", "source", box=None, pad_edge=False)
    for policy in policies:
        fields = ", ".join(f"{n}={_default(f)}" for n, f in policy.model_fields.items())
        about = (policy.__doc__ or "").strip().splitlines()[0]
        table.add_row(policy.spelling, fields, about, policy.source)
    return table


def fields_table(policy: type[Policy]) -> Table:
    """A row for every field of a policy: type, range, default, description."""
    table = Table("field", "type", "range", "default", "what it is", box=None, pad_edge=False)
    for name, field in policy.model_fields.items():
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        table.add_row(name, kind, _range(field), _default(field), field.description or "")
    return table


def _default(field: FieldInfo) -> str:
    return "required" if field.default is PydanticUndefined else f"{field.default}"


def _range(field: FieldInfo) -> str:
    """The bounds of a field, as "0 to 1" or "above 0"."""
    bounds: dict[str, Any] = {}
    for item in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(item, name):
                bounds[name] = getattr(item, name)
        if isinstance(item, annotated_types.MinLen):
            return "not empty"
    low = (
        f"{bounds['ge']:g}"
        if "ge" in bounds
        else f"above {bounds['gt']:g}"
        if "gt" in bounds
        else ""
    )
    high = (
        f"{bounds['le']:g}"
        if "le" in bounds
        else f"below {bounds['lt']:g}"
        if "lt" in bounds
        else ""
    )
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if "ge" in bounds else low or high

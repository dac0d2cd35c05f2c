"""A set of options: a model of pydantic whose faults are one line of ours."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import HGCVideoError, InputError, one_line


class Options(BaseModel):
    """A set of options whose faults are one line of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")
            if isinstance(cause, HGCVideoError):
                raise cause from None
            told = one_line(error, self._owner(), type(self).model_fields)
            raise InputError(told.removeprefix("generate: ")) from None

    @classmethod
    def _owner(cls) -> str:
        return "generate"

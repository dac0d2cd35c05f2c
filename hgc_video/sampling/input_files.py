"""The input files of a run as they were when it began: their hashes go into the clip's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import warn
from ..options import GenerateOptions
from .configuration import configuration


@dataclass(frozen=True)
class InputFiles:
    """The names that a clip tells of its files, by path, where others than those seen from it are wanted; and
    the SHA-256 of each when the run began, by the option's name."""

    names: Mapping[str, str] = field(default_factory=dict)
    begun: Mapping[str, str] = field(default_factory=dict)

    def as_begun(self, files: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Files as a configuration tells them at the end of a run, with the SHA-256 of what it was made of;
        warns of those that changed meanwhile, or are gone."""
        now = {name: dict(files.get(name, {"name": name})) for name in self.begun}
        changed = [name for name, told in now.items() if told.get("sha256") != self.begun[name]]
        if changed:
            named = ", ".join(f'"{now[name]["name"]}"' for name in changed)
            warn(
                f"{named} changed while the clip was made; the clip tells of the file as it was when the run "
                "began. Its sound, and frames that were read later, may be of the other one",
                stacklevel=2,
            )
        begun = {name: {**told, "sha256": self.begun[name]} for name, told in now.items()}
        return {**{name: dict(told) for name, told in files.items()}, **begun}


def sha256_of_inputs(options: GenerateOptions) -> dict[str, str]:
    """The SHA-256 of every file that a clip tells of, by the option's name; ask before any is read. Nothing
    where the clip is to tell nothing, or an input cannot be read, whose reader says why."""
    if not options.metadata:
        return {}
    try:
        files = configuration(options, None)["files"]
    except Exception:  # of whatever was given for a file
        return {}
    return {name: told["sha256"] for name, told in files.items() if "sha256" in told}

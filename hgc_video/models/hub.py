"""Fetches parts of models from the Hugging Face hub: pinned, resumable, safetensors only, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..paths import user_path

_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_UNWANTED = (
    "safety_checker/*",
    "feature_extractor/*",
    "*.fp16.safetensors",
    "*.non_ema.safetensors",
)


@dataclass(frozen=True)
class Part:
    """A repository, the revision that is wanted of it, and where not all of it is: one file, one folder,
    or several folders beside the files that lie outside of any."""

    repo: str
    revision: str = "main"
    file: str = ""
    folder: str = ""
    folders: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """Patterns of the files that are fetched."""
        if self.file:
            return [self.file]
        if self.folder:
            return [f"{self.folder}/{pattern}" for pattern in _WANTED]
        if self.folders:
            return ["*.json", *(f"{f}/{pattern}" for f in self.folders for pattern in _WANTED)]
        return list(_WANTED)

    @property
    def unwanted(self) -> list[str]:
        """Patterns of files that are left out all the same."""
        return [p for p in _UNWANTED if p.partition("/")[0] not in self.folders]


def fetch(part: Part, *, offline: bool = False) -> Path:
    """The local folder of a part (or its file, or a folder in it), downloaded where it is not there yet.

    A part whose repository is a local folder is taken from there. ModelError says why there is none.
    """
    local = user_path(part.repo)
    if local.is_dir():
        return _inside(local, part)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            part.repo, revision=part.revision, allow_patterns=part.wanted,
            ignore_patterns=part.unwanted,
            local_files_only=offline,
        )  # fmt: skip
    except LocalEntryNotFoundError as error:
        how = "it was asked to stay offline" if offline else "the hub cannot be reached"
        raise ModelError(
            f"{part.repo} at {part.revision} is not on this machine and {how}; "
            "run once with network, or name a local folder"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"cannot download {part.repo} at {part.revision}: {first}") from error
    return _inside(Path(folder), part)


def loading_options(device: str, dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` is told of fetched parts: this machine alone, safetensors alone, and torch's
    `dtype`, None being half precision on CUDA and single precision elsewhere."""
    import torch

    chosen = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    return {"dtype": chosen, "local_files_only": True, "use_safetensors": True}


def _inside(folder: Path, part: Part) -> Path:
    found = folder / (part.file or part.folder)
    if not found.exists():
        inside = part.file or part.folder
        raise ModelError(f"{part.repo} at {part.revision} has no {inside}; name another file")
    return found

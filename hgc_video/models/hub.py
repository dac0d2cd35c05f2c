"""Fetches parts of models from the Hugging Face hub: pinned, resumable, safetensors only, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import user_path
from .config_file import read_index

_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_UNWANTED = ("safety_checker/*", "feature_extractor/*", "*.non_ema.safetensors")
_VARIANT = "*.fp16*.safetensors"
_UNSAFE = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Part:
    """A repository, the revision that is wanted of it, and where not all of it is: one file, one folder,
    or several folders beside the files that lie outside of any; `variants` takes weights in half precision
    beside the plain ones."""

    repo: str
    revision: str = "main"
    file: str = ""
    folder: str = ""
    folders: tuple[str, ...] = ()
    variants: bool = False

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
        patterns = _UNWANTED if self.variants else (*_UNWANTED, _VARIANT)
        return [p for p in patterns if p.partition("/")[0] not in self.folders]


def named_part(named: str, file: str = "", folder: str = "", *, variants: bool = False) -> Part:
    """A part of a repository as users name it: `owner/name`, or `owner/name@COMMIT`, without which it is
    what the repository's owner has there today."""
    repo, _, revision = named.partition("@")
    return Part(repo, revision or "main", file=file, folder=folder, variants=variants)


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
    """What `from_pretrained` gets for fetched parts: this machine alone, safetensors alone, and torch's
    `dtype`, None being half precision on CUDA and single precision elsewhere."""
    import torch

    chosen = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    return {"dtype": chosen, "local_files_only": True, "use_safetensors": True}


def weights_variant(part: Path) -> str | None:
    """The variant that the weights of a part in a folder are of, such as "fp16", where those are all there
    are; None for plain ones. ModelError where there are none that are safe to load."""
    names = sorted(path.name for path in part.iterdir())
    stems = [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]
    variants = sorted(stem.split(".")[1].partition("-")[0] for stem in stems if "." in stem)
    if any("." not in stem for stem in stems):
        return None
    if variants:
        return "fp16" if "fp16" in variants else variants[0]
    unsafe = [name for name in names if name.endswith(_UNSAFE)]
    has = f" but {unsafe[0]}, which can run code when it is loaded" if unsafe else ""
    raise ModelError(
        f"cannot load {part}: it holds no safetensors{has}; save the model with safe_serialization=True"
    )


def variant_parts(
    folder: Path, options: dict[str, Any], but: Collection[str] = ()
) -> dict[str, Any]:
    """The models of a pipeline's folder, `but` some, whose weights are of a variant alone, loaded:
    `from_pretrained` of the whole pipeline looks for plain ones."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    index = read_index(folder)
    made = {}
    for name, of in index.items():
        part = folder / name
        if name in but or not isinstance(of, list) or not (part / "config.json").is_file():
            continue
        variant = weights_variant(part)
        if variant is not None and of[0] in libraries:
            kind = getattr(libraries[of[0]], of[1])
            made[name] = kind.from_pretrained(part, variant=variant, **options)
    return made


def _inside(folder: Path, part: Part) -> Path:
    found = folder / (part.file or part.folder)
    if not found.exists():
        inside = part.file or part.folder
        raise ModelError(f"{part.repo} at {part.revision} has no {inside}; name another file")
    return found

"""The parts of a model that a user names in place of its own: where they lie, and what they decide.

A part is a file, a folder, or a repository of the hub as `owner/name` or `owner/name@COMMIT`, with a folder
or a file in it behind it. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, warn
from ..files import refuse_stream, user_path
from ..options import GenerateOptions
from .config_file import read_config
from .hub import fetch, named_part
from .single_file import SD15, SDXL, checkpoint_configs, family_of, shapes_of, shipped_configs

IP_ADAPTERS = {
    SD15: "h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
    SDXL: "h94/IP-Adapter/sdxl_models/ip-adapter_sdxl.safetensors",
}
MOTION_ADAPTERS = {
    SD15: "guoyww/animatediff-motion-adapter-v1-5-3@449d8993ead63a068e1030eb26925132814db1c8",
    SDXL: "guoyww/animatediff-motion-adapter-sdxl-beta",
}
_PRESETS = {SD15: "animatediff"}  # whose ControlNets and schedules fit a base of this family
_PLAIN = "puppet"  # the model where none is named
_FAMILIES = {768: SD15, 2048: SDXL}  # by the width of the text


@dataclass(frozen=True)
class ModelParts:
    """What stands in place of a model's own parts, each as the user named it; "" or nothing is the model's
    own. `ip_adapter` says whether there is one, `ip_adapter_model` which one."""

    base: str = ""
    base_config: str = ""
    motion_adapter: str = ""
    vae: str = ""
    controlnets: tuple[tuple[str, str], ...] = ()
    loras: tuple[tuple[str, float], ...] = ()
    ip_adapter: bool = False
    ip_adapter_model: str = ""

    @classmethod
    def of(cls, options: GenerateOptions) -> ModelParts:
        """Those that the options of a run name."""
        named = ("base", "base_config", "motion_adapter", "vae", "ip_adapter_model")
        told = {name: str(getattr(options, name) or "") for name in named}
        nets: Mapping[str, Any] = options.controlnet or {}
        return cls(
            **told, controlnets=tuple((kind, str(net)) for kind, net in nets.items()),
            loras=tuple(options.loras.items()), ip_adapter=options.ip_adapter is not None,
        )  # fmt: skip

    @property
    def any(self) -> bool:
        """Whether anything is named."""
        return self != ModelParts()


def locate(named: str, offline: bool) -> Path:
    """The file or folder of a part; of the hub's repositories it is fetched.

    Raises:
        ModelError: it is nowhere, is a device or a pipe, or is a file that is not safe to load.
    """
    path = user_path(named)
    refuse_stream(path, ModelError)
    if path.exists():
        if path.is_file():
            shapes_of(path)  # that it is safetensors, and whole
        return path
    steps = named.split("/")
    if len(steps) < 2 or named.startswith((".", "~", "/")) or {"", ".."} & set(steps):
        raise ModelError(
            f'"{named}" is neither a file nor a folder; give a path, or a repository of the hub as '
            "owner/name or owner/name@COMMIT"
        )
    repo, inside = "/".join(steps[:2]), "/".join(steps[2:])
    if inside.endswith(".safetensors"):
        return fetch(named_part(repo, inside), offline=offline)
    found = fetch(named_part(repo, folder=inside), offline=offline)
    if not list(found.rglob("*.safetensors")):  # its weights may be in half precision alone
        found = fetch(named_part(repo, folder=inside, variants=True), offline=offline)
    return found


@dataclass(frozen=True)
class Base:
    """A base model: the checkpoint's file or the folder that it lies in, the folder of its
    configurations, and its family ("sd15", "sdxl", or "" where it is neither)."""

    path: Path
    configs: Path
    family: str


def find_base(parts: ModelParts, offline: bool) -> Base:
    """The base that the parts name. ModelError where there is none, or it cannot be told what it is."""
    path = locate(parts.base, offline)
    told = locate(parts.base_config, offline) if parts.base_config else None
    if path.is_file():
        configs = checkpoint_configs(path, told)
        return Base(path, configs, family_of(path) if told is None else family(configs))
    if told is not None:
        raise InputError(
            "base_config is for a base in one file; a folder has its own, leave it out"
        )
    return Base(path, path, family(path))


def family(configs: Path) -> str:
    """The family of a folder of configurations, by the width of the text that its UNet reads and by its
    layout; "" where the shipped configurations do not fit."""
    unet = read_config(configs / "unet")
    wide = unet.get("cross_attention_dim")
    found = _FAMILIES.get(wide, "") if isinstance(wide, int) else ""
    if not found:
        return ""
    shipped = read_config(shipped_configs(found) / "unet")["block_out_channels"]
    return found if list(unet.get("block_out_channels", ())) == shipped else ""


def model_of(model: str, parts: ModelParts, offline: bool) -> str:
    """The model that the parts are put into: as it is named; where only a base is, the preset that fits
    the base, or the base itself."""
    if not parts.base or model != _PLAIN:
        return model
    return _PRESETS.get(find_base(parts, offline).family, parts.base)


def configs_of_parts(folder: Path) -> Path:
    """Where the configurations of parts in single files lie: with the model, or the shipped ones of its
    family."""
    has_own = any(
        (folder / part / "config.json").is_file() for part in ("controlnet", "motion_adapter")
    )
    shipped = family(folder)
    return folder if has_own or not shipped else shipped_configs(shipped)


def refuse_parts(model: str, parts: ModelParts) -> None:
    """InputError where parts are named for a model that begins with an image."""
    if parts.any:
        raise InputError(
            f"{model} begins with an image and is taken as it is; leave base, vae, lora and the like out"
        )


def own_controlnets(where: Path, kinds: tuple[str, ...]) -> list[Path]:
    """The ControlNets for these controls in the folder of a model or a base. ModelError where one is not
    there, InputError where a base in one file is to have any."""
    if not kinds:
        return []
    if where.is_dir():
        return controlnet_folders(where, kinds)
    raise InputError(
        f"no ControlNet for {kinds[0]} is known for this base; name one with controlnet "
        f"(--controlnet {kinds[0]}=FILE)"
    )


def controlnet_folders(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Where a model's ControlNets for these controls lie: in controlnet_pose and so on; what has none there
    is in controlnet, controlnet_1 ..., as save_pretrained names several, in the order of the controls.

    Raises:
        ModelError: there is none for a control; the message says what is there.

    Warns (HGCVideoWarning) where a folder does not tell what its ControlNet was trained on.
    """
    unnamed = [kind for kind in kinds if not (folder / f"controlnet_{kind}").is_dir()]
    found = []
    for kind in kinds:
        net = folder / f"controlnet_{kind}"
        if kind in unnamed:
            number = unnamed.index(kind)
            net = folder / (f"controlnet_{number}" if number else "controlnet")
            if not net.is_dir():
                raise ModelError(_no_controlnet(folder, kind))
            _warn_of_kind(net, kind)
        found.append(net)
    return found


def _no_controlnet(folder: Path, kind: str) -> str:
    there = sorted(path.name for path in folder.glob("controlnet*") if path.is_dir())
    has = f" but {', '.join(there)}" if there else ""
    return (
        f"model folder {folder} has no controlnet_{kind}{has}; save a ControlNet for {kind} there, or name "
        f"one with controlnet (--controlnet {kind}=FILE)"
    )


def _warn_of_kind(net: Path, kind: str) -> None:
    warn(
        f"{net} does not say what it was trained on; it is taken for {kind}, which controlnet_{kind} would "
        "say",
        stacklevel=3,
    )

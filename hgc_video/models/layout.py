"""Names the layers of a live or meta UNet and ControlNet and what each reads.

Knows the layout of diffusers' UNets and probes it; an unknown one is refused. Does not run anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import AdapterError

_UNETS = ("UNetMotionModel", "UNet2DConditionModel")


@dataclass(frozen=True)
class Node:
    """A layer before its cost is known: `path` is the module's path in its model, None for a join."""

    name: str
    kind: str
    path: str | None
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The nodes in execution order, the cuts of the up path, and the blocks that hold each layer."""

    nodes: tuple[Node, ...]
    cuts: tuple[str, ...]

    def paths(self, part: str) -> dict[str, str]:
        """Layer name to module path, for "unet" or "controlnet"."""
        return {
            n.name: n.path
            for n in self.nodes
            if n.path is not None and n.name.startswith(part + ".")
        }


class _Chain:
    """Collects nodes that follow each other."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.nodes: list[Node] = []
        self.last: str | None = None

    def add(self, kind: str, path: str, *more: str, reads_last: bool = True) -> str:
        """Adds the layer at `path`, which reads the last one and `more`; returns its name."""
        name = f"{self.part}.{path}"
        first = (self.last,) if reads_last and self.last is not None else ()
        self.nodes.append(Node(name, kind, path, (*first, *more)))
        self.last = name
        return name

    def join(self, name: str, *inputs: str) -> str:
        """Adds a node without a module, off the chain."""
        self.nodes.append(Node(f"{self.part}.{name}", "join", None, inputs))
        return f"{self.part}.{name}"


def read_layout(unet: Any, controlnet: Any = None) -> Layout:
    """The layout of a UNet, with a ControlNet if there is one; AdapterError names what was expected."""
    _probe(unet)
    residuals = _ControlChain(controlnet) if controlnet is not None else None
    chain = _Chain("unet")
    time = chain.add("time", "time_embedding")
    skips = [chain.add("conv_in", "conv_in", time, reads_last=False)]
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            skips.append(_layers(chain, block, f"down_blocks.{i}", j))
        if block.downsamplers is not None:
            skips.append(chain.add("sampler", f"down_blocks.{i}.downsamplers.0"))
    _mid(chain, unet.mid_block)
    if residuals is not None:
        skips = [
            chain.join(f"skip.{k}", s, r)
            for k, (s, r) in enumerate(zip(skips, residuals.down, strict=True))
        ]
        chain.last = chain.join("skip.mid", str(chain.last), residuals.mid)
    cuts = _up(chain, unet.up_blocks, skips)
    chain.add("conv_out", "conv_out", time)
    nodes = (*(residuals.chain.nodes if residuals else ()), *chain.nodes)
    return Layout(nodes, tuple(cuts))


class _ControlChain:
    """The ControlNet's nodes and the names of its residuals."""

    def __init__(self, controlnet: Any) -> None:
        _probe_controlnet(controlnet)
        self.chain = chain = _Chain("controlnet")
        hint = chain.add("hint", "controlnet_cond_embedding")
        time = chain.add("time", "time_embedding", reads_last=False)
        latents = chain.add("conv_in", "conv_in", time, reads_last=False)
        outputs = [chain.join("conditioned", latents, hint)]
        chain.last = outputs[0]
        for i, block in enumerate(controlnet.down_blocks):
            for j in range(len(block.resnets)):
                outputs.append(_layers(chain, block, f"down_blocks.{i}", j))
            if block.downsamplers is not None:
                outputs.append(chain.add("sampler", f"down_blocks.{i}.downsamplers.0"))
        _mid(chain, controlnet.mid_block)
        middle = str(chain.last)
        self.down = [self._zero(f"controlnet_down_blocks.{k}", o) for k, o in enumerate(outputs)]
        self.mid = self._zero("controlnet_mid_block", middle)

    def _zero(self, path: str, reads: str) -> str:
        self.chain.last = reads
        return self.chain.add("zero_conv", path)


def _layers(chain: _Chain, block: Any, path: str, index: int, *reads: str) -> str:
    """One layer of a block: resnet, then spatial attention and motion module where there are such."""
    name = chain.add("resnet", f"{path}.resnets.{index}", *reads)
    for kind, attribute in (("attention", "attentions"), ("motion", "motion_modules")):
        modules = getattr(block, attribute, None)
        if modules is not None and index < len(modules) and modules[index] is not None:
            name = chain.add(kind, f"{path}.{attribute}.{index}")
    return name


def _mid(chain: _Chain, block: Any) -> None:
    chain.add("resnet", "mid_block.resnets.0")
    for i in range(len(block.resnets) - 1):
        for kind, attribute in (("attention", "attentions"), ("motion", "motion_modules")):
            modules = getattr(block, attribute, None)
            if modules is not None and modules[i] is not None:
                chain.add(kind, f"mid_block.{attribute}.{i}")
        chain.add("resnet", f"mid_block.resnets.{i + 1}")


def _up(chain: _Chain, blocks: Any, skips: list[str]) -> list[str]:
    """The up path; returns the cuts, outermost first."""
    before = []
    for i, block in enumerate(blocks):
        for j in range(len(block.resnets)):
            before.append(str(chain.last))
            _layers(chain, block, f"up_blocks.{i}", j, skips.pop())
        if block.upsamplers is not None:
            chain.add("sampler", f"up_blocks.{i}.upsamplers.0")
    if skips:
        raise AdapterError(f"{len(skips)} skip connections of this UNet are read by no up layer")
    return before[::-1]


def _probe(unet: Any) -> None:
    kinds = [c.__name__ for c in type(unet).__mro__]
    if not any(name in kinds for name in _UNETS):
        raise AdapterError(
            f"{type(unet).__name__} is not supported; supported are {', '.join(_UNETS)}"
        )
    _expect(
        unet, ("time_embedding", "conv_in", "down_blocks", "mid_block", "up_blocks", "conv_out")
    )
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        _expect(block, ("resnets",))


def _probe_controlnet(controlnet: Any) -> None:
    if "ControlNetModel" not in [c.__name__ for c in type(controlnet).__mro__]:
        raise AdapterError(
            f"{type(controlnet).__name__} is not supported; supported is ControlNetModel"
        )
    _expect(
        controlnet,
        ("controlnet_cond_embedding", "time_embedding", "conv_in", "down_blocks", "mid_block",
         "controlnet_down_blocks", "controlnet_mid_block"),
    )  # fmt: skip


def _expect(module: Any, attributes: Iterator[str] | tuple[str, ...]) -> None:
    missing = [a for a in attributes if getattr(module, a, None) is None]
    if missing:
        raise AdapterError(
            f"{type(module).__name__} was expected to have {', '.join(missing)}; "
            "this diffusers lays its models out differently"
        )

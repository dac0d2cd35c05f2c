"""Names the layers of a live or meta UNet and its ControlNets and what each reads.

Knows the layout of diffusers' UNets and probes it; an unknown one is refused. Does not run anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import AdapterError
from .image_prompt import PROJECTION, has_pictures
from .probe import TEMPORAL_UNET, is_a, probe_controlnet, probe_pair, probe_unet
from .windowed import inner_calls


@dataclass(frozen=True)
class Node:
    """A layer before its cost is known: `model` is "unet", "controlnet" or "controlnet.nets.1",
    `path` the module's path in it, None for a join. `inner_calls` is not empty where parts of the module
    run more than once a call, so that nothing inside can be reused by itself (FreeNoise)."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    model: str
    path: str | None
    inner_calls: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The nodes in execution order, the depths of the up path outermost first, the layers of each up
    block outermost first, and the axis of the UNet's input that counts the frames."""

    nodes: tuple[Node, ...]
    depths: tuple[str, ...]
    blocks: tuple[int, ...]
    frames_axis: int


def read_layout(unet: Any, controlnet: Any = None) -> Layout:
    """The layout of a UNet and what controls it; AdapterError names what was expected and found."""
    probe_unet(unet)
    nets = controlnets(controlnet)
    for net in nets.values():
        probe_pair(unet, net)
    controls = [_ControlChain(prefix, net) for prefix, net in nets.items()]
    chain = _Chain("unet")
    chain.times = _times(chain, unet)
    if has_pictures(unet):
        chain.pictures = [
            chain.add("time", PROJECTION, reads_last=False)
        ]  # fresh, as the timestep's
    skips = [chain.add("conv_in", "conv_in", reads_last=False)]
    for i, block in enumerate(unet.down_blocks):
        skips += _down(chain, block, f"down_blocks.{i}")
    _mid(chain, unet.mid_block)
    for control in controls:
        _fits(control, len(skips), unet)
    if controls:
        residuals = zip(*(control.down for control in controls), strict=True)
        skips = [
            chain.join(f"skip.{k}", skip, *added)
            for k, (skip, added) in enumerate(zip(skips, residuals, strict=True))
        ]
        chain.last = chain.join("skip.mid", str(chain.last), *(control.mid for control in controls))
    depths = _up(chain, unet.up_blocks, skips)
    chain.add("conv_out", "conv_out")
    nodes = [node for control in controls for node in control.chain.nodes]
    nodes += [_with_inner_calls(node, unet) for node in chain.nodes]
    blocks = tuple(len(block.resnets) for block in reversed(unet.up_blocks))
    axis = 1 if is_a(unet, TEMPORAL_UNET) else 2
    return Layout(tuple(nodes), tuple(depths), blocks, axis)


def _fits(control: _ControlChain, num_skips: int, unet: Any) -> None:
    """AdapterError where a ControlNet gives more residuals or fewer than the UNet has skip connections."""
    if len(control.down) != num_skips:
        raise AdapterError(
            f"a ControlNet with {len(control.down)} residuals cannot control a {type(unet).__name__} with "
            f"{num_skips} skip connections; give one that was made for this UNet"
        )


def _with_inner_calls(node: Node, unet: Any) -> Node:
    if node.path is None:
        return node
    return replace(node, inner_calls=inner_calls(unet.get_submodule(node.path)))


def controlnets(controlnet: Any) -> dict[str, Any]:
    """The ControlNets by the prefix of their layers' names: none, one, or those of several."""
    if controlnet is None:
        return {}
    if is_a(controlnet, "MultiControlNetModel"):
        return {f"controlnet.nets.{k}": net for k, net in enumerate(controlnet.nets)}
    return {"controlnet": controlnet}


class _Chain:
    """Collects nodes that follow each other; resnets read the embeddings `times` as well, attentions those
    of IP-Adapters' `pictures`."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.last: str | None = None
        self.times: list[str] = []
        self.pictures: list[str] = []

    def add(self, kind: str, path: str, *more: str, reads_last: bool = True) -> str:
        """Adds the layer at `path`, which reads the last one and `more`; returns its name."""
        name = f"{self.model}.{path}"
        first = (self.last,) if reads_last and self.last is not None else ()
        beside = {"resnet": self.times, "attention": self.pictures}.get(kind, ())
        self.nodes.append(Node(name, kind, (*first, *more, *beside), self.model, path))
        self.last = name
        return name

    def join(self, name: str, *inputs: str) -> str:
        """Adds a node without a module, off the chain."""
        self.nodes.append(Node(f"{self.model}.{name}", "join", inputs, self.model, None))
        return f"{self.model}.{name}"


class _ControlChain:
    """A ControlNet's nodes and the names of its residuals."""

    def __init__(self, prefix: str, controlnet: Any) -> None:
        probe_controlnet(controlnet)
        self.chain = chain = _Chain(prefix)
        hint = chain.add("hint", "controlnet_cond_embedding")
        chain.times = _times(chain, controlnet)
        latents = chain.add("conv_in", "conv_in", reads_last=False)
        outputs = [chain.join("conditioned", latents, hint)]
        chain.last = outputs[0]
        for i, block in enumerate(controlnet.down_blocks):
            outputs += _down(chain, block, f"down_blocks.{i}")
        _mid(chain, controlnet.mid_block)
        middle = str(chain.last)
        self.down = [self._zero(f"controlnet_down_blocks.{k}", o) for k, o in enumerate(outputs)]
        self.mid = self._zero("controlnet_mid_block", middle)

    def _zero(self, path: str, reads: str) -> str:
        self.chain.last = reads
        return self.chain.add("zero_conv", path)


def _times(chain: _Chain, model: Any) -> list[str]:
    """The embeddings of the timestep and of what is added to it; fresh at every step."""
    paths = ["time_embedding"]
    if getattr(model, "add_embedding", None) is not None:
        paths.append("add_embedding")
    return [chain.add("time", path, reads_last=False) for path in paths]


def _layers(chain: _Chain, block: Any, path: str, index: int, *reads: str) -> str:
    """One layer of a block: resnet, then spatial attention and motion module where there are such."""
    name = chain.add("resnet", f"{path}.resnets.{index}", *reads)
    for kind, attribute in (("attention", "attentions"), ("motion", "motion_modules")):
        modules = getattr(block, attribute, None)
        if modules is not None and index < len(modules) and modules[index] is not None:
            name = chain.add(kind, f"{path}.{attribute}.{index}")
    return name


def _down(chain: _Chain, block: Any, path: str) -> list[str]:
    """A down block; returns the tensors that it hands to the skips."""
    skips = [_layers(chain, block, path, j) for j in range(len(block.resnets))]
    if block.downsamplers is not None:
        skips.append(chain.add("sampler", f"{path}.downsamplers.0"))
    return skips


def _mid(chain: _Chain, block: Any) -> None:
    chain.add("resnet", "mid_block.resnets.0")
    for i in range(len(block.resnets) - 1):
        for kind, attribute in (("attention", "attentions"), ("motion", "motion_modules")):
            modules = getattr(block, attribute, None)
            if modules is not None and modules[i] is not None:
                chain.add(kind, f"mid_block.{attribute}.{i}")
        chain.add("resnet", f"mid_block.resnets.{i + 1}")


def _up(chain: _Chain, blocks: Any, skips: list[str]) -> list[str]:
    """The up path; returns the depths, outermost first."""
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

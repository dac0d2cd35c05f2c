"""Files as users have them, made of small random models: checkpoints with the original names of Stable
Diffusion 1.5 and XL, ControlNets and motion adapters in one file, kohya's LoRA, IP-Adapters."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

_TIMES = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
_ENDS = {
    **_TIMES, "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_LAYERS = 2  # of a block, in all models of the tests


def checkpoint(path: Path, unet, vae, text, second=None) -> Path:
    """A checkpoint of Stable Diffusion 1.5, or of XL with a `second` text encoder."""
    weights = {f"model.diffusion_model.{ldm(n)}": w for n, w in unet.state_dict().items()}
    weights |= vae_weights(vae, "first_stage_model.")
    prefix = "cond_stage_model." if second is None else "conditioner.embedders.0."
    weights |= {
        f"{prefix}transformer.text_model.{n.removeprefix('text_model.')}": w
        for n, w in text.state_dict().items()
    }
    if second is not None:
        weights |= _open_clip(second)
    return written(path, weights)


def ldm(name: str) -> str:
    """The original name of a UNet's or ControlNet's weight."""
    stem, _, kind = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    place, i, part, j, rest = re.match(
        r"(down|up|mid)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name
    ).groups()
    if part == "resnets":
        inner, _, kind = rest.rpartition(".")
        rest = f"{_RESNET[inner]}.{kind}"
    if place == "mid":
        return f"middle_block.{2 * int(j) if part == 'resnets' else 1}.{rest}"
    first, word = (1, "input_blocks") if place == "down" else (0, "output_blocks")
    block = first + int(i) * (_LAYERS + 1)
    if part == "downsamplers":
        return f"{word}.{block + _LAYERS}.0.{rest.replace('conv', 'op')}"
    if part == "upsamplers":
        return f"{word}.{block + _LAYERS}.@.{rest}"
    return f"{word}.{block + int(j)}.{0 if part == 'resnets' else 1}.{rest}"


def vae_weights(vae, prefix: str = "") -> dict:
    """A VAE's weights under their original names."""
    return {prefix + _vae(n, vae): _as_conv(n, w) for n, w in vae.state_dict().items()}


def _vae(name: str, vae) -> str:
    last = len(vae.config.block_out_channels) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = r"up_blocks\.(\d+)\."
    name = re.sub(up + "resnets", lambda m: f"up.{last - int(m[1])}.block", name)
    name = re.sub(up + r"upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    for ours, theirs in (
        ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"),
        ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def _as_conv(name: str, weight):
    return weight[..., None, None] if ".to_" in name and name.endswith("weight") else weight


def _open_clip(model) -> dict:
    weights, state = {}, model.state_dict()
    prefix = "conditioner.embedders.1.model."
    for name, weight in state.items():
        name = name.removeprefix("text_model.")
        inner = re.match(r"encoder\.layers\.(\d+)\.(.+)", name)
        if inner is None:
            continue
        rest = inner[2].replace("layer_norm", "ln_").replace("mlp.fc1", "mlp.c_fc")
        rest = rest.replace("mlp.fc2", "mlp.c_proj").replace("self_attn.out_proj", "attn.out_proj")
        at = f"{prefix}transformer.resblocks.{inner[1]}."
        if "q_proj" in rest:  # one matrix for all three
            three = [state[next(k for k in state if k.endswith(name.replace("q_proj", p)))]
                     for p in ("q_proj", "k_proj", "v_proj")]  # fmt: skip
            weights[f"{at}attn.in_proj_{rest.rpartition('.')[2]}"] = torch.cat(three)
        elif "_proj" not in rest or "out_proj" in rest or "c_proj" in rest:
            weights[at + rest] = weight
    text = model.text_model if hasattr(model, "text_model") else model
    weights |= {
        f"{prefix}positional_embedding": text.embeddings.position_embedding.weight,
        f"{prefix}token_embedding.weight": text.embeddings.token_embedding.weight,
        f"{prefix}ln_final.weight": text.final_layer_norm.weight,
        f"{prefix}ln_final.bias": text.final_layer_norm.bias,
        f"{prefix}text_projection": model.text_projection.weight.T.contiguous(),
    }
    return weights


def controlnet_file(path: Path, net) -> Path:
    """A ControlNet alone, under its original names."""
    weights = {}
    for name, weight in net.state_dict().items():
        kind = name.rpartition(".")[2]
        if name.startswith("controlnet_down_blocks."):
            other = f"zero_convs.{name.split('.')[1]}.0.{kind}"
        elif name.startswith("controlnet_mid_block."):
            other = f"middle_block_out.0.{kind}"
        elif name.startswith("controlnet_cond_embedding.blocks."):
            other = f"input_hint_block.{2 * (int(name.split('.')[2]) + 1)}.{kind}"
        elif name.startswith("controlnet_cond_embedding."):
            other = f"input_hint_block.{0 if 'conv_in' in name else 14}.{kind}"
        else:
            other = ldm(name)
        weights[f"control_model.{other}"] = weight
    return written(path, weights)


def motion_adapter_file(path: Path, adapter) -> Path:
    """A motion adapter alone, under AnimateDiff's own names."""
    weights = {}
    for name, weight in adapter.state_dict().items():
        other = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)
        if other.endswith("pos_embed.pe"):
            stem = other.removesuffix("pos_embed.pe")
            for k in range(2):
                weights[f"{stem}attention_blocks.{k}.pos_encoder.pe"] = weight.clone()
            continue
        for ours, theirs in (
            (".norm1", ".norms.0"), (".norm2", ".norms.1"), (".norm3", ".ff_norm"),
            (".attn1", ".attention_blocks.0"), (".attn2", ".attention_blocks.1"),
        ):  # fmt: skip
            other = other.replace(ours, theirs)
        weights[other] = weight
    return written(path, weights)


def kohya_lora(path: Path, unet, text=None, *, where: str = "attentions", seed: int = 3) -> Path:
    """A LoRA of rank 2 in kohya's format, of the UNet's attentions and the text encoder's."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for prefix, model, wanted in (("lora_unet_", unet, where), ("lora_te_", text, "self_attn")):
        if model is None:
            continue
        for name, module in model.named_modules():
            if wanted not in name or not isinstance(module, torch.nn.Linear):
                continue
            if not name.endswith(("to_q", "to_v", "to_out.0", "q_proj", "v_proj", "out_proj")):
                continue
            at = (
                name if prefix == "lora_unet_" else f"text_model.{name.removeprefix('text_model.')}"
            )
            at = prefix + at.replace(".", "_")
            down = torch.randn(2, module.in_features, generator=generator) * 0.3
            up = torch.randn(module.out_features, 2, generator=generator) * 0.3
            weights |= {f"{at}.lora_down.weight": down, f"{at}.lora_up.weight": up}
            weights[f"{at}.alpha"] = torch.tensor(2.0)
    return written(path, weights)


def motion_lora(path: Path, unet) -> Path:
    """A LoRA of the motion modules in diffusers' format."""
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, module in unet.named_modules():
        if "motion_modules" in name and name.endswith("to_q"):
            shapes = {"lora_A": (2, module.in_features), "lora_B": (module.out_features, 2)}
            for part, shape in shapes.items():
                values = torch.randn(shape, generator=generator) * 0.3
                weights[f"unet.{name}.{part}.weight"] = values
    return written(path, weights)


def ip_adapter_file(path: Path, weights: dict, encoder) -> Path:
    """An IP-Adapter with its image encoder beside it; `weights` as `_load_ip_adapter_weights` takes them."""
    flat = {f"{part}.{n}": w for part, inner in weights.items() for n, w in inner.items()}
    encoder.save_pretrained(path.parent / "image_encoder")
    return written(path, flat)


def written(path: Path, weights: dict) -> Path:
    """The file of these weights."""
    block = re.compile(r"(.*output_blocks\.\d+)\.")
    with_attention = {block.match(n)[1] for n in weights if "output_blocks" in n and "attn1" in n}
    named = {}
    for name, weight in weights.items():
        if ".@." in name:  # behind the attention, where the last layer of the block has one
            has_attention = name.partition(".@.")[0] in with_attention
            name = name.replace(".@.", ".2." if has_attention else ".1.")
        named[name] = weight.detach().clone().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)
    return path


def configurations(folder: Path, pipe, **more) -> Path:
    """The configurations of a pipeline's parts, and of `more` models, without any weights."""
    for name, part in {**pipe.components, **more}.items():
        if part is None:
            continue
        where = folder / name
        if hasattr(part, "save_config"):
            part.save_config(where)
        elif hasattr(part, "vocab_size") and not hasattr(part, "parameters"):
            part.save_pretrained(where)
        else:
            part.config.save_pretrained(where)
    pipe.save_config(folder)
    return folder

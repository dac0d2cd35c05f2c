"""LoRA and IP-Adapter under the cache: what they add is part of what is computed and reused."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.plan.presets import resolve
from tests.tiny_models import (
    FRAMES,
    Clip,
    controlnet,
    graph_of,
    image_unet,
    motion_unet,
)


def run(clip, policy):
    graph = graph_of(clip)
    schedule = resolve(policy).schedule(graph, len(clip.timesteps))
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        return clip.run(engine)


def ip_adapter_weights(unet, image_width=12, tokens=4):
    """Random weights of one adapter, in the layout of the released ones."""
    generator = torch.Generator().manual_seed(3)
    text = unet.config.cross_attention_dim

    def random(*size):
        return torch.randn(size, generator=generator) * 0.3

    weights, index = {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor") or "motion_modules" in name:
            continue
        attention = unet.get_submodule(name.removesuffix(".processor"))
        width = attention.to_q.out_features
        weights[f"{index}.to_k_ip.weight"] = random(width, text)
        weights[f"{index}.to_v_ip.weight"] = random(width, text)
        index += 2
    projection = {
        "proj.weight": random(tokens * text, image_width), "proj.bias": random(tokens * text),
        "norm.weight": torch.ones(text), "norm.bias": torch.zeros(text),
    }  # fmt: skip
    return {"image_proj": projection, "ip_adapter": weights}


class PicturedClip(Clip):
    """A clip with a picture beside its prompt."""

    picture = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(9))

    @torch.no_grad()
    def step(self, t, scale: float = 0.7):
        sample = self.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000)
        flat = sample.transpose(1, 2).flatten(0, 1)
        down, mid = self.controlnet(
            flat, t, encoder_hidden_states=self.text, controlnet_cond=self.hint, return_dict=False
        )
        pictures = self.picture.repeat_interleave(FRAMES, 0)
        return self.unet(
            flat, t, encoder_hidden_states=self.text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid, added_cond_kwargs={"image_embeds": [pictures]},
        ).sample  # fmt: skip


def test_an_ip_adapter_is_computed_reused_and_halved():
    unet = image_unet()
    unet._load_ip_adapter_weights([ip_adapter_weights(unet)])
    clip = PicturedClip(unet, controlnet())
    stock = clip.run()
    assert all(torch.equal(a, b) for a, b in zip(run(clip, "full"), stock, strict=True))
    for ours, theirs in zip(run(clip, "lossless"), stock, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    before = run(clip, "hgc:interval=2,cut=1,gate=0.6")
    clip.picture = clip.picture.flip(-1)
    after = run(clip, "hgc:interval=2,cut=1,gate=0.6")
    assert all(torch.isfinite(a).all() for a in after)
    assert not torch.allclose(before[0], after[0], atol=1e-4)


def test_a_lora_is_part_of_what_is_computed():
    peft = pytest.importorskip("peft", reason="install peft")
    clip = Clip(motion_unet(), controlnet())
    plain = run(clip, "lossless")
    lora = peft.LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    torch.manual_seed(4)
    clip.unet.add_adapter(lora)
    stock = clip.run()
    assert all(torch.equal(a, b) for a, b in zip(run(clip, "full"), stock, strict=True))
    with_lora = run(clip, "lossless")
    for ours, theirs in zip(with_lora, stock, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain[0], with_lora[0], atol=1e-4)
    clip.unet.disable_adapters()
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(run(clip, "lossless"), plain, strict=True)
    )

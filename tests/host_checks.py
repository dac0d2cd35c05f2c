"""What diffusers' own test classes check of a pipeline, each as a function of a host.

They are not part of its wheel. What they check was read in its public repository (tests/pipelines:
the testers for pipelines, for Stable Diffusion functions, IP-Adapter, from_pipe, memory and Karras
schedulers, and what the AnimateDiff and video classes add) and is written anew here. Every check asserts
what the host promises and gives back all results, so that those with and without an engine can be
compared to the bit. Some things differ from there: results are compared with each other and not with
fixed slices, weights are saved as safetensors alone, and half precision is run on the CPU too.

Not here, as they need an accelerator: sequential offloading (it fails on the CPU without a cache), a device
map, `to(device)`, xformers. FreeNoise is in tests/test_changes.py.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import tempfile

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.schedulers import KarrasDiffusionSchedulers

import hgc_video
from hgc_video.cache.patch import is_wrapped
from tests import tiny_pipelines as tiny
from tests.cache.test_adapters import ip_adapter_weights
from tests.tiny_models import group_offloads_here

PROMPT = "a dancer in a red shirt"


class Host:
    """A pipeline by its name in tiny_pipelines, with the engine of a preset, or without one."""

    def __init__(self, name, preset=None):
        self.name, self.preset = name, preset
        self.pipe = tiny.make(name)
        self.takes = inspect.signature(type(self.pipe).__call__).parameters
        self.cache = hgc_video.enable_cache(self.pipe, preset) if preset else None

    def fresh(self):
        """Another one, for what cannot be taken back."""
        return Host(self.name, self.preset)

    def call(self, **more):
        """The latents, or pixels, of two steps (b …)."""
        return self.call_on(self.pipe, **more)

    def call_on(self, pipe, **more):
        """The same on another pipeline; where ours has an engine it must have been at work, and be off."""
        steps = 3 if "strength" in self.given else 2
        made = tiny.call(pipe, self.name, **{"num_inference_steps": steps, **more})
        if self.cache and pipe is self.pipe:
            assert self.cache._run.engine is not None and self.cache.report.macs > 0
            assert self.cache.report.macs == self.cache.report.macs_baseline
        assert not any(is_wrapped(module) for module in pipe.unet.modules())
        return made

    @property
    def given(self):
        """What a call is given."""
        return tiny.PIPELINES[self.name][1]()

    @property
    def per_prompt(self):
        """How the pipeline calls the number of results of a prompt."""
        return (
            "num_videos_per_prompt"
            if "num_videos_per_prompt" in self.takes
            else "num_images_per_prompt"
        )

    def embedded(self):
        """The prompt as embeddings, made by `encode_prompt` alone."""
        named = {
            "prompt": PROMPT, "device": "cpu", "do_classifier_free_guidance": True, self.per_prompt: 1,
            "num_images_per_prompt": 1,
        }  # fmt: skip
        known = inspect.signature(self.pipe.encode_prompt).parameters
        with torch.no_grad():
            made = self.pipe.encode_prompt(**{k: v for k, v in named.items() if k in known})
        names = (
            "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )  # fmt: skip
        return {"prompt": None, **dict(zip(names, made, strict=False))}


def tuples(host):
    """A tuple holds what the dictionary does."""
    pipe = host.pipe
    given = {**host.given, "num_inference_steps": 3}
    torch.manual_seed(0)
    whole = pipe(**given, generator=_seeds(0))
    torch.manual_seed(0)
    bare = pipe(**given, generator=_seeds(0), return_dict=False)
    bare = (
        bare[0] if isinstance(bare, tuple) else bare
    )  # the image-to-video pipeline gives it alone
    assert torch.equal(bare, whole[0])
    return [bare]


def batches(host):
    """The first of several prompts, with a generator each, is what it is alone; of unequal lengths. The
    AnimateDiff pipelines count a batch of control clips as one clip's frames: it fits for two of two."""
    many, short = {}, {}
    if "prompt" in host.given:
        many["prompt"] = [PROMPT, "very long " * 50]
    for name in ("image", "video", "conditioning_frames"):
        if name in host.given and host.name != "sparse controlnet":  # one control for all prompts
            frames = host.given[name]
            if host.name == "controlnet" and name == "conditioning_frames":
                short = {"num_frames": 2, name: frames[:2]}
            many[name] = 2 * [short.get(name, frames)]
    short[host.per_prompt] = 1
    one = host.call(**short)
    both = host.call(**{**short, **many}, generators=2)
    assert len(both) == 2 * len(one)
    torch.testing.assert_close(both[: len(one)], one, atol=1e-4, rtol=1e-4)
    return [one, both]


def several_of_a_prompt(host):
    """So many results of a prompt as were asked for; AnimateDiff makes one, whatever was asked for."""
    one, two = host.call(**{host.per_prompt: 1}), host.call(**{host.per_prompt: 2})
    times = 1 if hasattr(host.pipe, "motion_adapter") else 2
    assert len(two) == times * len(one)
    return [one, two]


def callbacks(host):
    """A callback gets what it asks for and nothing else, and what it changes counts."""
    allowed = list(host.pipe._callback_tensor_inputs)
    seen: list[set[str]] = []

    def look(pipe, index, t, values):
        seen.append(set(values))
        return values

    def zero(pipe, index, t, values):
        if index == pipe.num_timesteps - 1:
            values["latents"] = torch.zeros_like(values["latents"])
        return values

    some = host.call(callback_on_step_end=look, callback_on_step_end_tensor_inputs=["latents"])
    every = host.call(callback_on_step_end=look, callback_on_step_end_tensor_inputs=allowed)
    assert torch.equal(some, every) and seen == [{"latents"}] * 2 + [set(allowed)] * 2
    changed = host.call(callback_on_step_end=zero, callback_on_step_end_tensor_inputs=allowed)
    assert changed.abs().sum() == 0
    return [some, every]


def guidance(host):
    """Without guidance the shape is the same; a callback may change its scale."""
    name = "guidance_scale" if "guidance_scale" in host.takes else "max_guidance_scale"

    def more(pipe, index, t, values):
        pipe._guidance_scale += 1.0
        return values

    off = {name: 1.0} if name == "guidance_scale" else {"min_guidance_scale": 1.0, name: 1.0}
    without, with_it = host.call(**off), host.call()
    assert without.shape == with_it.shape and not torch.equal(without, with_it)
    if name != "guidance_scale":
        return [without, with_it]
    changed = host.call(guidance_scale=2.0, callback_on_step_end=more)
    assert host.pipe.guidance_scale == 2.0 + host.pipe.num_timesteps
    return [without, with_it, changed]


def one_step_and_given_latents(host):
    """The least number of steps; noise that is handed in, here that of another seed."""
    steps = 2 if "strength" in host.given else 1
    few = host.call(num_inference_steps=steps)
    assert torch.isfinite(few).all() and len(host.pipe.scheduler.timesteps) == steps
    noise = torch.randn(few.shape, generator=_seeds(5))
    more = {"video": None} if "video" in host.given else {}  # a clip or its latents, not both
    one, two = (host.call(latents=noise.clone(), seed=seed, **more) for seed in (0, 3))
    if host.name not in ("sparse controlnet", "svd"):  # these draw noise for the image too
        assert torch.equal(one, two)
    return [few, one, two]


def embeddings(host):
    """Embeddings in place of a prompt, also of a pipeline that has no text encoder."""
    plain, given = host.call(), host.embedded()
    same = _without_text(host, given)
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)
    return [plain, same]


def longer_embeddings(host):
    """Embeddings of any length."""
    given = {
        name: value if value is None or value.ndim < 3 else torch.cat([value, value], 1)
        for name, value in host.embedded().items()
    }
    long = _without_text(host, given)
    if host.cache:
        assert host.cache._run.batch.clip.num_tokens == given["prompt_embeds"].shape[1]
    return [long]


def _without_text(host, given):
    """A call of the pipeline without its text encoders."""
    parts = host.pipe.components.items()
    texts = {name: part for name, part in parts if name.startswith(("text_enc", "tokenizer"))}
    for name in texts:
        setattr(host.pipe, name, None)
    try:
        return host.call(**given)
    finally:
        host.pipe.register_modules(**texts)


def progress(host):
    """The progress bar reaches its end, and is silent where it was turned off."""
    host.pipe.set_progress_bar_config()
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        shown = host.call()
    assert "2/2" in said.getvalue()
    host.pipe.set_progress_bar_config(disable=True)
    with contextlib.redirect_stderr(io.StringIO()) as silent:
        hidden = host.call()
    assert silent.getvalue() == ""
    return [shown, hidden]


def interruption(host):
    """A run that is interrupted gives what it has; the next one is whole."""
    whole = host.call(num_inference_steps=4)

    def stop(pipe, index, t, values):
        pipe._interrupt = index == 0
        return values

    broken = host.call(num_inference_steps=4, callback_on_step_end=stop)
    if hasattr(host.pipe, "interrupt"):
        assert not torch.equal(broken, whole)
        assert host.cache is None or len(host.cache.report.steps) == 1
    return [whole, broken, host.call(num_inference_steps=4)]


def pixels(host):
    """Sliced and tiled decoding give the picture; all kinds of output are the same picture."""
    vae = host.pipe.vae
    made = host.call(output_type="pt")
    as_arrays = _arrays(host)
    axes = (0, 1, 3, 4, 2) if as_arrays.ndim == 5 else (0, 2, 3, 1)
    torch.testing.assert_close(made.permute(axes), torch.from_numpy(as_arrays), atol=1e-4, rtol=0)
    results = [made]
    if isinstance(vae, diffusers.AutoencoderKL):
        vae.enable_slicing()
        results.append(host.call(output_type="pt", **{host.per_prompt: 2}))
        vae.disable_slicing()
        vae.enable_tiling()
        results.append(host.call(output_type="pt"))
        vae.disable_tiling()
        assert (results[-1] - made).abs().max() < 0.5
    return results


def _arrays(host):
    """A call's frames or images as arrays."""
    given = {**host.given, "num_inference_steps": 3 if "strength" in host.given else 2}
    torch.manual_seed(0)
    return host.pipe(**{**given, "output_type": "np"}, generator=_seeds(0))[0]


def saving(host):
    """A folder saved while the engine is attached loads as the same pipeline; so does a variant."""
    plain = host.call()
    results = [plain]
    for variant in (None, "fp16"):
        with tempfile.TemporaryDirectory() as folder:
            host.pipe.save_pretrained(folder, variant=variant)
            loaded = type(host.pipe).from_pretrained(folder, variant=variant, local_files_only=True)
        loaded.set_progress_bar_config(disable=True)
        if host.name == "pag":  # which layers are perturbed is not saved
            loaded.set_pag_applied_layers("mid")
        assert set(loaded.components) == set(host.pipe.components)
        weights = host.pipe.unet.state_dict()
        for name, saved in loaded.unet.state_dict().items():
            assert torch.equal(saved, weights[name])
    torch.testing.assert_close(host.call_on(loaded), plain, atol=5e-4, rtol=0)
    return results


def half_precision(host):
    """All parts are cast, and the result is finite."""
    results, cast = [], host.fresh()
    for dtype in (torch.bfloat16, torch.float16):
        cast.pipe.to(dtype=dtype)
        parts = [p for p in cast.pipe.components.values() if isinstance(p, torch.nn.Module)]
        assert all(part.dtype == dtype for part in parts)
        results.append(cast.call())
        assert torch.isfinite(results[-1].float()).all()
    return results


def layerwise_casting(host):
    """Weights kept in eight bits and computed in sixteen."""
    host = host.fresh()
    before = host.call()
    host.pipe.to(dtype=torch.bfloat16)
    host.pipe.unet.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16
    )
    after = host.call()
    assert torch.isfinite(after.float()).all()
    return [before, after]


def attention(host):
    """Slices, other processors and fused projections leave the result as it is."""
    pipe, plain = host.pipe, host.call()
    results = [plain]
    pipe.enable_attention_slicing(slice_size=1)
    results.append(host.call())
    pipe.disable_attention_slicing()
    own = dict(pipe.unet.attn_processors)
    for processor in (AttnProcessor(), AttnProcessor2_0()):
        pipe.unet.set_attn_processor(processor)
        results.append(host.call())
    pipe.unet.set_attn_processor(own)
    if hasattr(pipe, "fuse_qkv_projections"):
        pipe.fuse_qkv_projections()
        results.append(host.call())
        pipe.unfuse_qkv_projections()
    results.append(host.call())
    for result in results:
        torch.testing.assert_close(result, plain, atol=1e-3, rtol=1e-3)
    return results


def freeu(host):
    """FreeU makes a difference, and none once it is disabled."""
    plain = host.call()
    host.pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    changed = host.call()
    host.pipe.disable_freeu()
    back = host.call()
    assert torch.equal(back, plain) and not torch.equal(changed, plain)
    return [changed, back]


def free_init(host):
    """FreeInit makes a difference, with other schedulers too, and none once it is disabled."""
    pipe, plain = host.pipe, host.call()
    results = [plain]
    for fast in (False, True):
        pipe.enable_free_init(num_iters=2, use_fast_sampling=fast)
        results.append(host.call())
        assert not torch.equal(results[-1], plain)
        pipe.disable_free_init()
    own = pipe.scheduler
    for other in (diffusers.DPMSolverMultistepScheduler, diffusers.LCMScheduler):
        pipe.scheduler = other.from_config(own.config, timestep_spacing="linspace", steps_offset=1)
        pipe.enable_free_init(num_iters=2, use_fast_sampling=False)
        results.append(host.call())
        pipe.disable_free_init()
    pipe.scheduler = own
    results.append(host.call())
    assert torch.equal(results[-1], plain)
    return results


def ip_adapters(host):
    """One and two IP-Adapters: without weight no difference, with weight one; unloaded, none again."""
    host = host.fresh()
    pipe, plain = host.pipe, host.call()
    generator = _seeds(9)
    pictures = torch.randn(2, 1, 12, generator=generator)
    results = [plain]
    for count in (1, 2):
        pipe.unet._load_ip_adapter_weights([ip_adapter_weights(pipe.unet)] * count)
        for scale in (0.0, 42.0):
            pipe.set_ip_adapter_scale([scale] * count)
            results.append(host.call(ip_adapter_image_embeds=[pictures] * count))
            close = torch.allclose(results[-1], plain, atol=1e-3)
            assert close if scale == 0.0 else not close
    mask = torch.zeros(1, 1, tiny.PIXELS, tiny.PIXELS)
    mask[..., : tiny.PIXELS // 2] = 1
    if "cross_attention_kwargs" in host.takes and not hasattr(pipe, "motion_adapter"):
        masks = {"ip_adapter_masks": [mask, mask.flip(-1)]}
        results.append(
            host.call(ip_adapter_image_embeds=[pictures] * 2, cross_attention_kwargs=masks)
        )
        assert not torch.equal(results[-1], results[-2])
    pipe.unload_ip_adapter()
    results.append(host.call())
    torch.testing.assert_close(results[-1], plain, atol=1e-4, rtol=1e-4)
    return results


def loras(host):
    """A LoRA makes a difference, none while it is disabled or after it was unloaded."""
    import peft

    host = host.fresh()
    pipe, plain = host.pipe, host.call()
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    torch.manual_seed(4)
    pipe.unet.add_adapter(config)
    changed = host.call()
    pipe.unet.disable_adapters()
    off = host.call()
    pipe.unet.enable_adapters()
    again = host.call()
    pipe.unload_lora_weights()
    back = host.call()
    assert torch.equal(changed, again) and not torch.allclose(changed, plain, atol=1e-4)
    for same in (off, back):
        torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)
    return [changed, off, again, back]


def offloading(host):
    """Whole models and groups of layers that come to the device when they are needed, call after call."""
    host = host.fresh()
    plain, device = host.call(), torch.device("cpu")
    host.pipe.enable_model_cpu_offload(device="cpu")
    results = [host.call(), host.call()]
    host.pipe.remove_all_hooks()
    results.append(host.call())
    for kind in ("block_level", "leaf_level") if group_offloads_here() else ():
        grouped = host.fresh()
        before = grouped.call()
        more = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        grouped.pipe.unet.enable_group_offload(device, device, offload_type=kind, **more)
        results += [before, grouped.call(), grouped.call()]
    for result in results:
        torch.testing.assert_close(result, plain, atol=1e-4, rtol=1e-4)
    return results


def shared_parts(host):
    """A pipeline made of another one's parts runs as if it were alone, in turns with the other."""
    plain = host.call()
    other = type(host.pipe).from_pipe(host.pipe)
    other.set_progress_bar_config(disable=True)
    assert other.unet is host.pipe.unet
    results = [host.call_on(other), host.call(), host.call_on(other, guidance_scale=1.0)]
    assert torch.equal(results[0], plain) and torch.equal(results[1], plain)
    with hgc_video.enable_cache(other, "full"):  # one cache each, on the same models
        results += [host.call_on(other), host.call()]
    assert torch.equal(results[3], plain) and torch.equal(results[4], plain)
    return results


def schedulers(host):
    """Every one of Karras' schedulers gives latents of the same shape, put in between the calls."""
    own, results = host.pipe.scheduler, []
    for kind in KarrasDiffusionSchedulers:
        make = getattr(diffusers, kind.name)
        try:
            host.pipe.scheduler = make.from_config(own.config, skip_prk_steps=True)
        except ImportError:  # some need packages of their own
            continue
        results.append(host.call(num_inference_steps=5 if "KDPM2" in kind.name else 3))
    host.pipe.scheduler = own
    assert len(results) > 8 and len({r.shape for r in results}) == 1
    return results


def own_timesteps(host):
    """Timesteps and sigmas of one's own; SDXL's run that ends early."""
    own = host.pipe.scheduler
    host.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(own.config)
    results = [host.call(timesteps=[900, 500, 100])]
    assert host.pipe.scheduler.timesteps.tolist() == [900, 500, 100]
    results.append(host.call(sigmas=[9.0, 3.0, 0.5]))
    host.pipe.scheduler = own
    if "denoising_end" in host.takes:
        results.append(host.call(num_inference_steps=6, denoising_end=0.5))
        assert host.cache is None or len(host.cache.report.steps) == host.pipe.num_timesteps < 6
    return results


def motion(host):
    """A 2D UNet that is handed in becomes one with the motion modules."""
    assert type(host.pipe.unet) is diffusers.UNetMotionModel
    return [host.call()]


def _seeds(seed):
    return torch.Generator().manual_seed(seed)

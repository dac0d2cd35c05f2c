"""generate(): a control clip and a prompt in, a controlled clip and its report out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from .clip import Clip
from .generator import Generator, StepCallback, clips_of, is_list
from .media.video import ImageLike, VideoLike

if TYPE_CHECKING:
    import torch

_Text = str | Mapping[int, str]


@overload
def generate(
    control_video: VideoLike | None = None, prompt: _Text = "", *, seed: int | None = ...,
    **options: Any,
) -> Clip: ...  # fmt: skip
@overload
def generate(
    control_video: VideoLike | None = None, prompt: _Text = "", *, seed: list[int], **options: Any
) -> list[Clip]: ...
@overload
def generate(
    control_video: VideoLike | None, prompt: list[_Text], *, seed: int | list[int] | None = ...,
    **options: Any,
) -> list[Clip]: ...  # fmt: skip
def generate(  # type: ignore[misc]  # the overloads name what decides the result's type
    control_video: VideoLike | None = None,
    prompt: _Text | list[_Text] = "",
    *,
    control: str | Mapping[str, VideoLike] = "pose",
    video: VideoLike | None = None,
    strength: float = 0.6,
    image: ImageLike | None = None,
    model: str = "puppet",
    preset: str = "balanced",
    net: bool | None = None,
    base: str | os.PathLike[str] | None = None,
    base_config: str | os.PathLike[str] | None = None,
    motion_adapter: str | os.PathLike[str] | None = None,
    vae: str | os.PathLike[str] | None = None,
    controlnet: Mapping[str, str | os.PathLike[str]] | None = None,
    lora: Mapping[str, float] | str | os.PathLike[str] | list[str] | None = None,
    ip_adapter: ImageLike | None = None,
    ip_adapter_scale: float = 0.6,
    ip_adapter_model: str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    clip_skip: int | None = None,
    prompt_syntax: str = "plain",
    negative_prompt: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    conditioning_scale: float | Mapping[str, float] = 1.0,
    control_guidance_start: float = 0.0,
    control_guidance_end: float = 1.0,
    num_frames: int | None = None,
    frames: str | None = None,
    every: int | None = None,
    loop: bool = False,
    scenes: bool = False,
    scenes_of: str | os.PathLike[str] | None = None,
    context_length: int | None = None,
    context_overlap: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    source_fps: float | None = None,
    invert_depth: bool = False,
    motion: Mapping[str, float] | None = None,
    seed: int | list[int] | None = 0,
    extract: bool | str | Mapping[str, Any] = False,
    fidelity: bool | str | Mapping[str, Any] = False,
    force: bool = False,
    memory: str | int | None = None,
    out: str | os.PathLike[str] | None = None,
    audio: bool | str | os.PathLike[str] = True,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    metadata: bool = True,
    device: str | None = None,
    devices: int = 1,
    dtype: torch.dtype | str | None = None,
    offline: bool = False,
    auto_calibrate: bool = False,
    calibration_dir: str | os.PathLike[str] | None = None,
    work: str | os.PathLike[str] | None = None,
    checkpoint_every_s: float = 60.0,
    progress: bool = True,
    callback: StepCallback | None = None,
) -> Clip | list[Clip]:
    """Makes the clip that `prompt` describes, or that `image` begins, and `control_video` moves.

    Args that matter:
        control_video: a path, frames (f H W 3) uint8, or a list of images: a ready control clip, or
            with `extract` a raw video to take the control from.
        prompt: what the clip shows; or a prompt that travels along the frames, `{0: "...", 48: "..."}`;
            or a list of prompts, a clip for each.
        control: "pose" (OpenPose skeletons), "depth" (near is bright), or what else the model has; or
            several at once, `{"pose": "a.mp4", "depth": "b.mp4"}`, without a control_video.
        video: a clip to restyle (video to video), with a control clip or without; it decides frames, size
            and rate. `strength` is the share of the steps that it goes through: more departs further.
        image: the clip's first frame, of models that begin with one and read no prompt ("svd"): a path, an
            array (H W 3) uint8 or a PIL image. It is placed in the frame as the control is.
        model: "puppet" (embedded), a preset that `hgc-video models` lists (downloaded at first use), a
            folder in diffusers format, or a repository of the hub that is laid out as one.
        preset: off, lossless, quality, balanced, fast, turbo; "quality=45dB", which finds out at run time
            what to compute for that PSNR to the uncached clip; or a policy such as "deepcache:interval=3".
        base: the user's own checkpoint, a .safetensors file of Stable Diffusion 1.5 or XL, a folder in
            diffusers format, or a repository of the hub. Motion adapter and ControlNets come from `model`,
            or where that is not named from the usual ones of the base, unless they are named too.
        lora: LoRA files with their scales, `{"style.safetensors": 0.8}`, motion LoRAs too.
        ip_adapter: a picture that the clip is to look like (2308.06721): a path, an array (H W 3) uint8 or
            a PIL image.
        num_inference_steps: denoising steps; more is closer to the model's own limit. None is the model's
            own number. A preset may run more, cheaper ones; the report tells.
        seed: the same seed gives the same clip; None draws one, which the report names; or a list of
            seeds, a clip for each. `hgc_video.Generator` keeps the model for further calls.
    Args to tinker with:
        motion_adapter, vae, controlnet, ip_adapter_model: a .safetensors file, a folder, or a repository
            as "owner/name", "owner/name/folder" or "owner/name@COMMIT/file.safetensors", which pins it;
            `controlnet` by kind, `{"pose": "openpose.safetensors"}`.
        base_config: of a base in one file that is neither Stable Diffusion 1.5 nor XL, the folder of the
            configurations of what it was tuned from.
        net: while computed steps show that forecasts fail, what the preset reuses is computed. None puts
            the net under presets where the sampler adds noise at its steps ("euler-a", "lcm").
        scheduler: "ddim", "dpm++", "euler", "euler-a", "unipc" or "lcm", on the settings of the model's own.
        clip_skip: layers of the text encoder left out at its end; 1 is what web interfaces call 2.
        prompt_syntax: "compel" reads weights such as "(red)1.3" and prompts beyond 75 tokens, which cost
            what their tokens cost; needs the extra `prompts`.
        guidance_scale: the strength of the prompt; None is the model's own default, 1 or less is off.
        conditioning_scale: the strength of the control, 0 leaves it out; by kind for several.
        auto_calibrate: at a model's first use, measure it and search a schedule of its own for the
            preset, on this clip and prompt; takes as long as some dozens of clips, once. It is kept in
            `calibration_dir`; None is $HGC_VIDEO_HOME, or hgc_video in $XDG_CACHE_HOME (~/.cache).
        device: "cpu", "cuda", "cuda:1", "mps"; None is the first of CUDA, MPS and the CPU that is there.
        devices: one clip of several windows over so many GPUs of this machine, a process for each; with
            device="cpu" over so many processes, which share cores and `memory`. The result is that of one
            device within rounding. Such a run is not kept in a work folder. In a script, call this under
            `if __name__ == "__main__":`, as each process reads the script anew.
        dtype: "float32", "float16", "bfloat16" or torch's; None is half precision on CUDA and single
            precision elsewhere.
        offline: use what is on this machine and download nothing.
        control_guidance_start, control_guidance_end: shares of the run between which the ControlNet
            runs.
        num_frames: None takes all frames that the clip has, thinned to about 12 a second; of models that
            begin with an image as many as the model makes, with a warning of what is left. More than the
            model holds at once are made in overlapping windows of `context_length` frames (None: what it
            holds) that share `context_overlap` frames (None: a quarter of them).
        frames, every: which frames of the control clip are taken: "100:260" from frame 100 up to 259, every
            so many of them. `loop` repeats a clip that has fewer than num_frames.
        scenes: scene cuts are found in the control clip, and no window reaches across one; of a ready control
            clip in the film that it was made of, `scenes_of`.
        memory: what the run may take, as "8GiB" or bytes, weights included; the run is split to fit, and
            refused where nothing fits. None is what is free on the device.
        out: a clip to write, as Clip.save does, but frame by frame as they are decoded, so that a long clip
            is never in memory as a whole; `Clip.frames` then reads that file. None keeps the frames. Of
            several clips the first is written to `NAME-1.mp4`, and so on.
        work: a folder that keeps what the run has made: every `checkpoint_every_s` seconds, after steps that
            leave little to keep. The same call, or `resume(work)`, goes on from there after the process
            ended, to the same clip; a clip that is done is not made again, and another one's folder is
            refused. With it, Ctrl-C has the run finish its step first, a second Ctrl-C ends it at once.
            None keeps a run with `out` that takes more than two minutes in "OUT.work", until it is done.
        audio: True keeps the sound of the control clip, cut to the frames taken; False leaves it out; a file
            gives its own.
        codec, crf, pix_fmt: how .mp4 and .webm are encoded: "h264", "hevc", "av1" or "vp9", 0 is best,
            "yuv420p" or what else the codec takes.
        metadata: the clip carries its configuration (options, hashes of inputs and weights, versions, steps;
            no path but file names), which `hgc-video show` prints.
        force: go on with a control clip that cannot be what it is given as, a raw film as skeletons.
        height, width, fps: None follows the control clip.
        extract: the control clips are raw videos, and controls are taken from them: True; preprocessors by
            name, "pose:hands=true+depth"; or by kind, {"pose": True}. `hgc-video extract --list` has them.
        fidelity: extract the controls from the finished clip again and say in the report how near they are to
            what was asked for: True, with what extracted them or the defaults, or preprocessors as `extract`.
        source_fps: the rate of a control clip that carries none (a folder of images, frames in memory).
        invert_depth: the depth clip is bright where it is far.
        motion: of models that begin with an image: `fps` (7) and `motion_bucket_id` (127) that they are
            told, `noise_aug_strength` (0.02) on the image, and `min_guidance_scale` (1) at the first frame,
            from where guidance grows to guidance_scale.
        callback: called after each step with (step_index, num_inference_steps, latents (1 c f h w), or
            (1 f c h w) of models that begin with an image); returning False stops the run.

    Returns:
        A Clip: `frames` (f H W 3) uint8, `fps`, `report`, `save(path)`; a list of them for a list of
        prompts or seeds.

    Raises:
        InputError: something given cannot be used; the message says what and what to do.
        ModelError: the model cannot be found or loaded.
        MissingExtraError: `extract` needs a package that is not installed.
        StateError: `work` is of another run, is in use, or its model or an input changed.
        Cancelled: the callback returned False, or Ctrl-C stopped a run that is kept.

    Warns:
        HGCVideoWarning: what of the control clip is left out, frames or sound; memory ran out and a smaller
            memory plan is tried.
    """
    given = dict(locals())  # every parameter but the two hooks is an option
    del given["progress"], given["callback"]
    clips = Generator().make(clips_of(given), progress, callback)
    return clips if is_list(given) else clips[0]

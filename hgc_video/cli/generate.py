"""`hgc-video generate`: a control clip and a prompt in, a clip and its report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .shell import app, quiet_libraries, told_in_one_line


@app.command()
def generate(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option(help="Clip to write: .mp4, .gif, .webp, or a folder of PNGs.")
    ],
    prompt: Annotated[
        str, typer.Option(help="What the clip shows. Not of models that begin with an image.")
    ] = "",
    image: Annotated[
        Path | None, typer.Option(help="The first frame, of models that begin with an image (svd).")
    ] = None,
    pose: Annotated[
        Path | None, typer.Option(help="Clip of OpenPose skeletons that the dancer follows.")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Depth clip to follow instead; near is bright.")
    ] = None,
    canny: Annotated[
        Path | None, typer.Option(help="Clip of Canny edges, of models with it.")
    ] = None,
    softedge: Annotated[
        Path | None, typer.Option(help="Clip of soft edges, of models with it.")
    ] = None,
    lineart: Annotated[Path | None, typer.Option(help="Clip of lines, of models with it.")] = None,
    prompt_at: Annotated[
        list[str] | None,
        typer.Option(
            help="Another prompt from a frame on, as '48=a dancer in the snow'; between the frames told "
            "prompts go over into each other. Repeat it."
        ),
    ] = None,
    extract: Annotated[
        bool, typer.Option("--extract", help="The clip is a raw video: take the control from it.")
    ] = False,
    negative_prompt: Annotated[str | None, typer.Option(help="What the clip avoids.")] = None,
    model: Annotated[
        str,
        typer.Option(help="puppet, a model of hgc-video models, a folder, or a hub repository."),
    ] = "puppet",
    preset: Annotated[
        str, typer.Option(help="off, lossless, quality, balanced, fast or turbo.")
    ] = "balanced",
    num_inference_steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: the model's own.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Pull of the prompt. Default: the model's own.")
    ] = None,
    conditioning_scale: Annotated[
        str, typer.Option(help="Pull of the control, or of several: pose=1,depth=0.5.")
    ] = "1",
    motion: Annotated[
        str | None,
        typer.Option(
            help="Of models with an image: motion_bucket_id=127,noise_aug_strength=0.02 ..."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same clip.")] = 0,
    num_frames: Annotated[
        int | None, typer.Option(help="Frames to make. Default: as the control clip.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Pixels. Default: as the control clip.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. Default: as the control clip.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second. Default: as the control clip.")
    ] = None,
    source_fps: Annotated[
        float | None,
        typer.Option(
            help="Rate of a control that is a folder of images. Default: that of another control of as "
            "many frames, or else --fps, or else 8."
        ),
    ] = None,
    invert_depth: Annotated[
        bool, typer.Option("--invert-depth", help="In the depth clip near is dark: turn it round.")
    ] = False,
    context_length: Annotated[
        int | None,
        typer.Option(help="Frames of a window of a long clip. Default: what the model holds."),
    ] = None,
    context_overlap: Annotated[
        int | None, typer.Option(help="Frames that windows share. Default: a quarter of a window.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What the run may take, as 8GiB. Default: what is free.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for what the run cost.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... Default: cuda where there is one.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing: use what is on this machine.")
    ] = False,
    auto_calibrate: Annotated[
        bool,
        typer.Option(
            "--auto-calibrate",
            help="At a model's first use, measure it and search its own schedule for the preset.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    """Makes a clip from a control clip and a prompt.

    Example:  hgc-video generate --pose examples/dance_pose.mp4
    --prompt "a dancer in a red shirt and blue trousers on a beach" --out clip.mp4

    From a raw video:  hgc-video generate --pose dancer.mp4 --extract --prompt ... --out clip.mp4

    From a first frame:  hgc-video generate --model svd --image first.png --depth depth.mp4 --out clip.mp4
    """
    with told_in_one_line(context):
        given = {
            "pose": pose, "depth": depth, "canny": canny, "softedge": softedge, "lineart": lineart,
        }  # fmt: skip
        controls = {kind: clip for kind, clip in given.items() if clip is not None}
        if not controls:
            raise InputError("give a control clip with --pose FILE or --depth FILE; none was given")
        for source in controls.values():
            _check_outputs(source, out, report)
        if image is not None:
            _check_outputs(image, out, report, "image")
        quiet_libraries()
        from ..pipeline import generate as make

        clip = make(
            None,
            _travelling(prompt, prompt_at or []),
            control=controls,
            image=image,
            model=model,
            preset=preset,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            conditioning_scale=_scales(conditioning_scale),
            motion=None if motion is None else _numbers("--motion", motion, "motion_bucket_id=60"),
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            source_fps=source_fps,
            invert_depth=invert_depth,
            seed=seed,
            extract=extract,
            context_length=context_length,
            context_overlap=context_overlap,
            memory=memory,
            out=out,
            device=device,
            offline=offline,
            auto_calibrate=auto_calibrate,
            progress=not quiet,
        )
        written = [f"clip      {out.expanduser()}"]
        if report is not None:
            written.append(f"report    {clip.report.save(report)}")
        if not quiet:
            typer.echo("\n".join([clip.report.summary(), *written]))


def _travelling(prompt: str, later: list[str]) -> str | dict[int, str]:
    """The prompt, or the prompts by the frames from which they hold."""
    told = {0: prompt}
    for text in later:
        frame, equals, words = text.partition("=")
        if not equals or not frame.strip().isdigit() or not words.strip():
            raise InputError(
                f'--prompt-at "{text}" is not possible; write FRAME=PROMPT, as "48=a dancer"'
            )
        told[int(frame)] = words.strip()
    return told if len(told) > 1 else prompt


def _scales(told: str) -> float | dict[str, float]:
    """One scale, or scales by kind of control."""
    how = "a number, or pose=1,depth=0.5"
    if "=" in told:
        return _numbers("--conditioning-scale", told, how)
    return _numbers("--conditioning-scale", f"={told}", how)[""]


def _numbers(option: str, told: str, how: str) -> dict[str, float]:
    """Numbers by name, of a text such as "pose=1,depth=0.5"."""
    try:
        pairs = (part.partition("=") for part in told.split(","))
        return {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        shown = told.removeprefix("=")
        raise InputError(f'{option} "{shown}" is not possible; write {how}') from None


def _check_outputs(
    source: Path, out: Path, report: Path | None, what: str = "control clip"
) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    from ..atomic import check_writable
    from ..media.video import check_output

    if out.expanduser().resolve() == source.expanduser().resolve():
        raise InputError(f'--out "{out}" is the {what} itself; name another file')
    check_output(out)
    if report is not None:
        if report.expanduser().resolve() == source.expanduser().resolve():
            raise InputError(f'--report "{report}" is the {what} itself; name another file')
        check_writable(report)

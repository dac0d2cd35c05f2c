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
    prompt: Annotated[str, typer.Option(help="What the clip shows.")],
    out: Annotated[
        Path, typer.Option(help="Clip to write: .mp4, .gif, .webp, or a folder of PNGs.")
    ],
    pose: Annotated[
        Path | None, typer.Option(help="Clip of OpenPose skeletons that the dancer follows.")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Depth clip to follow instead; near is bright.")
    ] = None,
    extract: Annotated[
        bool, typer.Option("--extract", help="The clip is a raw video: take the control from it.")
    ] = False,
    negative_prompt: Annotated[str | None, typer.Option(help="What the clip avoids.")] = None,
    model: Annotated[str, typer.Option(help="puppet, or a folder in diffusers format.")] = "puppet",
    preset: Annotated[
        str, typer.Option(help="off, lossless, quality, balanced, fast or turbo.")
    ] = "balanced",
    num_inference_steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Pull of the prompt. Default: the model's own.")
    ] = None,
    conditioning_scale: Annotated[float, typer.Option(help="Pull of the control.")] = 1.0,
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Makes a clip from a control clip and a prompt.

    Example:  hgc-video generate --pose examples/dance_pose.mp4
    --prompt "a dancer in a red shirt and blue trousers on a beach" --out clip.mp4

    From a raw video:  hgc-video generate --pose dancer.mp4 --extract --prompt ... --out clip.mp4
    """
    with told_in_one_line(context):
        control, source = _one_control(pose, depth)
        _check_outputs(source, out, report)
        quiet_libraries()
        from ..pipeline import generate as make

        clip = make(
            source,
            prompt,
            control=control,
            model=model,
            preset=preset,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            conditioning_scale=conditioning_scale,
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            seed=seed,
            extract=extract,
            context_length=context_length,
            context_overlap=context_overlap,
            memory=memory,
            device=device,
            progress=not quiet,
        )
        written = [f"clip      {clip.save(out)}"]
        if report is not None:
            written.append(f"report    {clip.report.save(report)}")
        if not quiet:
            typer.echo("\n".join([clip.report.summary(), *written]))


def _one_control(pose: Path | None, depth: Path | None) -> tuple[str, Path]:
    if pose is not None and depth is None:
        return "pose", pose
    if depth is not None and pose is None:
        return "depth", depth
    given = "both were given" if pose else "neither was given"
    raise InputError(f"give one of --pose FILE and --depth FILE; {given}")


def _check_outputs(source: Path, out: Path, report: Path | None) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    from ..atomic import check_writable
    from ..media.video import check_output

    if out.expanduser().resolve() == source.expanduser().resolve():
        raise InputError(f'--out "{out}" is the control clip itself; name another file')
    check_output(out)
    if report is not None:
        if report.expanduser().resolve() == source.expanduser().resolve():
            raise InputError(f'--report "{report}" is the control clip itself; name another file')
        check_writable(report)

"""The command line: `hgc-video generate | plan | policies | models | doctor`.

The edge of the package: reads options, prints, and turns errors into one line and an exit code: 2
for what the user can mend, 1 for what we must, 130 for cancelled. Nobody imports it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import Cancelled, HGCVideoError, InputError

app = typer.Typer(
    name="hgc-video",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the `hgc-video` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill cleans up as Ctrl-C does
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hgc-video {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an internal error.")
    ] = False,
) -> None:
    """Video diffusion guided by a pose or depth clip, made several times cheaper by caching.

    Start here:  hgc-video generate --help
    """
    context.obj = debug


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
    with _told_in_one_line(debug=context.obj):
        control, source = _one_control(pose, depth)
        _check_outputs(source, out, report)
        clip = _generator()(
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


@app.command()
def plan(
    context: typer.Context,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "--preset",
            help="A preset, or policies as name:field=value,...+name (hgc-video policies lists them). "
            "Repeat it to compare.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="puppet, a folder, or a configuration that hgc-video models lists.")
    ] = "puppet",
    control: Annotated[str, typer.Option(help="pose or depth (of a folder).")] = "pose",
    controlnet: Annotated[
        int | None,
        typer.Option(help="How many ControlNets. Default: one where the model takes any."),
    ] = None,
    num_inference_steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    num_frames: Annotated[
        int | None, typer.Option(help="Frames to make. Default: the model's own.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels. Default: the model's own.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. Default: the model's own.")] = None,
    guidance: Annotated[bool, typer.Option(help="Classifier-free guidance.")] = True,
    convention: Annotated[
        str, typer.Option(help="all, or no-attention-products as older tables count.")
    ] = "all",
    memory: Annotated[
        str | None,
        typer.Option(help="Also show how a run in half precision is cut to fit, as 8GiB."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows what would be computed and reused at every step, and what that costs; runs nothing.

    Counts UNet and ControlNet from the model's configuration alone.

    Example:  hgc-video plan --model animatediff-sd15 --policy balanced --policy deepcache:interval=3
    """
    with _told_in_one_line(debug=context.obj):
        from .forecast import forecast

        chosen = policy or ["balanced"]
        told = [
            forecast(
                model=model, control=control, preset=preset, num_controlnets=controlnet,
                num_inference_steps=num_inference_steps, num_frames=num_frames, height=height,
                width=width, guided=guidance, convention=convention, memory=memory,
            )
            for preset in chosen
        ]  # fmt: skip
        if as_json:
            texts = [one.to_json() for one in told]
            typer.echo(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
            return
        for preset, one in zip(chosen, told, strict=True):
            if len(chosen) > 1:
                typer.secho(preset, bold=True)
            typer.echo(str(one))


@app.command()
def policies(context: typer.Context) -> None:
    """Lists the presets, and the policies with their fields, defaults and sources."""
    with _told_in_one_line(debug=context.obj):
        from .plan.presets import PRESETS
        from .plan.registry import POLICIES

        typer.echo(f"presets       {', '.join(PRESETS)}; fewer-steps:steps=N goes with any")
        for name, entry in POLICIES.items():
            typer.echo(f"{name:<17} {entry.about} ({entry.source})")
            fields = ", ".join(f"{key}={value}" for key, value in entry.options().items())
            if fields:
                typer.echo(f"{'':<17} {fields}")


@app.command()
def models(context: typer.Context) -> None:
    """Lists the models that `--model` takes."""
    with _told_in_one_line(debug=context.obj):
        from .models.known_models import known_models
        from .models.load import EMBEDDED, read_facts

        facts = read_facts(EMBEDDED)
        side = round(facts.default_area**0.5)
        typer.echo(
            f"{EMBEDDED}    embedded, nothing to download: {side}x{side}, up to "
            f"{facts.max_frames} frames, sizes in multiples of {facts.multiple}, "
            f"guidance {facts.guidance_scale:g}\n"
            "FOLDER    any AnimateDiff ControlNet model that pipe.save_pretrained wrote, "
            "with controlnet_pose/ or controlnet_depth/ in it\n"
            f"for hgc-video plan alone, by configuration: {', '.join(known_models())}"
        )


@app.command()
def doctor(context: typer.Context) -> None:
    """Shows what is installed, which devices there are, and how to get what is missing."""
    with _told_in_one_line(debug=context.obj):
        from .doctor import examine

        section = ""
        for finding in examine():
            if finding.section != section:
                section = finding.section
                typer.secho(section, bold=True)
            mark = " " if finding.ok else "!"
            typer.echo(f"{mark} {finding.name:<14} {finding.value}")
            if finding.remedy:
                typer.echo(f"  {'':<14} -> {finding.remedy}")


@contextmanager
def _told_in_one_line(debug: bool) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        typer.echo("cancelled; nothing was written", err=True)
        raise typer.Exit(130) from None
    except HGCVideoError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        told = " ".join(str(error).split())[:300]
        typer.echo(
            f"internal error: {type(error).__name__}: {told} (hgc-video --debug shows where)",
            err=True,
        )
        raise typer.Exit(1) from None


def _one_control(pose: Path | None, depth: Path | None) -> tuple[str, Path]:
    if pose is not None and depth is None:
        return "pose", pose
    if depth is not None and pose is None:
        return "depth", depth
    given = "both were given" if pose else "neither was given"
    raise InputError(f"give one of --pose FILE and --depth FILE; {given}")


def _check_outputs(source: Path, out: Path, report: Path | None) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    from .atomic import check_writable
    from .media.video import check_output

    if out.expanduser().resolve() == source.expanduser().resolve():
        raise InputError(f'--out "{out}" is the control clip itself; name another file')
    check_output(out)
    if report is not None:
        if report.expanduser().resolve() == source.expanduser().resolve():
            raise InputError(f'--report "{report}" is the control clip itself; name another file')
        check_writable(report)


def _generator() -> Any:
    """`generate` of the package, with the libraries under it quiet and patient."""
    settings = {
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        # Threads that spin while they wait for a core that is taken make a run ten times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    from .pipeline import generate

    return generate

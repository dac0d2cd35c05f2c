"""`hgc-video plan | policies | models | doctor`: what would be done and what is there, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shell import app, errors_in_one_line, show


@app.command(rich_help_panel="Before a run")
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
    net: Annotated[
        bool | None,
        typer.Option(
            "--net/--no-net",
            help="With a net under the preset. Default: as generate, where the sampler adds noise.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="The scheduler of the run, as of generate: whether it adds noise."),
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
        typer.Option(help="Also show how a run in half precision is split to fit, as 8GiB."),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(help="One step in full: what is computed, reused, skipped, stored, and why."),
    ] = None,
    throughput: Annotated[
        str | None,
        typer.Option(
            help="For --memory, --checkpoint-every-s and --devices: T MACs and GB to host memory a second, "
            "as 40,20; or 'measured', which times this machine's GPU. Default: a desktop GPU, assumed."
        ),
    ] = None,
    checkpoint_every_s: Annotated[
        float | None,
        typer.Option(
            help="Also show after which steps a run with --work is kept, at least every so many seconds, "
            "and what that costs."
        ),
    ] = None,
    devices: Annotated[
        int,
        typer.Option(
            help="Also show what the clip takes over so many devices, and what they exchange at every step."
        ),
    ] = 1,
    base: Annotated[
        str, typer.Option(help="A checkpoint in place of the model's own: a file or a folder.")
    ] = "",
    base_config: Annotated[
        str, typer.Option(help="Its configurations, where it is neither SD1.5 nor XL.")
    ] = "",
    motion_adapter: Annotated[
        str, typer.Option(help="A motion adapter in place of the model's own: a file or a folder.")
    ] = "",
    ip_adapter: Annotated[
        bool, typer.Option("--ip-adapter", help="With a picture that the clip is to look like.")
    ] = False,
    ip_adapter_model: Annotated[str, typer.Option(help="Its IP-Adapter file.")] = "",
    prompt_parts: Annotated[
        int, typer.Option(help="Of a long prompt: how often the text encoder reads.")
    ] = 1,
    strength: Annotated[
        float, typer.Option(help="Of video to video: the share of the steps that run.")
    ] = 1.0,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the chart of steps by layers: a .png, or a .svg whose steps give their reason on "
            "hover (extra: eval)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows what would be computed and reused at every step, and what that costs; runs nothing.

    Counts UNet and ControlNet from the model's configuration alone; only --throughput measured uses the GPU.

    Example:  hgc-video plan --model animatediff-sd15 --policy balanced --policy deepcache:interval=3
    """
    with errors_in_one_line(context):
        from ..files import numbered
        from ..forecast import forecast
        from ..plan.chart import check_chart

        chosen = policy or ["balanced"]
        charts = (
            [numbered(plot, n if chosen[1:] else None) for n, _ in enumerate(chosen, 1)]
            if plot
            else []
        )
        for path in charts:
            check_chart(path)
        made = [
            forecast(
                model=model, control=control, preset=preset, net=net, scheduler=scheduler,
                num_controlnets=controlnet,
                num_inference_steps=num_inference_steps, num_frames=num_frames, height=height,
                width=width, guided=guidance, convention=convention, memory=memory,
                throughput=throughput, checkpoint_every_s=checkpoint_every_s, devices=devices, base=base,
                base_config=base_config,                motion_adapter=motion_adapter, ip_adapter=ip_adapter,
                ip_adapter_model=ip_adapter_model, prompt_parts=prompt_parts, strength=strength,
            )
            for preset in chosen
        ]  # fmt: skip
        for path, one in zip(charts, made, strict=bool(charts)):
            one.plot(path)
        if as_json:
            texts = [one.to_json() for one in made]
            typer.echo(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
            return
        for preset, one in zip(chosen, made, strict=True):
            if len(chosen) > 1:
                typer.secho(preset, bold=True)
            typer.echo(str(one if step is None else one.explain(step)))
        for path in charts:
            typer.echo(f"chart  {path}")


@app.command(rich_help_panel="Before a run")
def policies(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A policy, to see its fields. Default: list all.")
    ] = None,
) -> None:
    """Lists the presets and policies, or the fields of one policy with type, range, default and source.

    Example:  hgc-video policies deepcache
    """
    with errors_in_one_line(context):
        from ..errors import PresetError, nearest
        from ..plan.policies.registry import POLICIES
        from ..plan.presets import PRESETS
        from .policy_table import fields_table, policies_table

        if name is not None and name not in POLICIES:
            raise PresetError(f'unknown policy "{name}": {nearest(name, POLICIES)}')
        if name is None:
            typer.echo(f"presets  {', '.join(PRESETS)}")
            show(policies_table(POLICIES.values()))
            typer.echo("fields of one policy:  hgc-video policies NAME")
        else:
            typer.echo(POLICIES[name].__doc__)
            typer.echo(f"source  {POLICIES[name].source}")
            show(fields_table(POLICIES[name]))


@app.command(rich_help_panel="Before a run")
def models(context: typer.Context) -> None:
    """Lists the models that `--model` takes."""
    with errors_in_one_line(context):
        from ..models.catalog import model_preset, model_presets
        from ..models.configurations import known_models
        from ..models.load import EMBEDDED, read_facts

        facts = read_facts(EMBEDDED)
        side = round(facts.default_area**0.5)
        downloads = "".join(
            f"{made.name:<22} {made.about}: {', '.join(made.controlnets)}; {made.num_inference_steps} steps, "
            f"guidance {made.guidance_scale:g} (downloaded at first use)\n"
            for made in map(model_preset, model_presets())
        )
        typer.echo(
            f"{EMBEDDED}    embedded, nothing to download: {side}x{side}, up to "
            f"{facts.max_frames} frames, sizes in multiples of {facts.multiple}, "
            f"guidance {facts.guidance_scale:g}\n{downloads}"
            "FOLDER    any AnimateDiff or Stable Video Diffusion pipeline that pipe.save_pretrained wrote, "
            "with controlnet_pose/ or controlnet_depth/ in it; a hub repository laid out so, owner/name or "
            "owner/name@COMMIT\n"
            f"for hgc-video plan alone, by configuration: {', '.join(known_models())}"
        )


@app.command(rich_help_panel="Before a run")
def doctor(context: typer.Context) -> None:
    """Shows what is installed, which devices there are, and how to get what is missing."""
    with errors_in_one_line(context):
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

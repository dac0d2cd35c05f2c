"""`hgc-video compare`: methods on the same clips and noise, as a table, JSON and a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shell import app, errors_in_one_line, quiet_libraries

_FIRST_CLIP = 3000  # of the embedded model's: not those of training, calibration or search


@app.command(rich_help_panel="Schedules")
def compare(
    context: typer.Context,
    methods: Annotated[
        str,
        typer.Option(
            help="Presets, policies, fewer-steps:steps=N, dpm++:steps=N and "
            "gradient-estimation:steps=N, divided by commas."
        ),
    ] = "quality,balanced,fast,turbo,deepcache:interval=3",
    model: Annotated[str, typer.Option(help="puppet, or a folder in diffusers format.")] = "puppet",
    samples: Annotated[
        Path | None,
        typer.Option(help="YAML list of {control: clip.mp4, kind: pose, prompt: ..., seed: 0}."),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(help="Clips to run. Default: all of the list, 4 of the model's own."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Noises of each clip.")] = 1,
    num_frames: Annotated[int, typer.Option(help="Frames of each.")] = 4,
    num_inference_steps: Annotated[int, typer.Option(help="Steps of the uncached run.")] = 25,
    converged_steps: Annotated[
        int, typer.Option(help="Steps of the converged run; 0 for none.")
    ] = 100,
    scheduler: Annotated[
        str,
        typer.Option(help="Class of diffusers, as EulerAncestralDiscreteScheduler. Default: own."),
    ] = "",
    controls: Annotated[
        bool, typer.Option(help="Add fewer steps and DPM++ 2M at no less cost for every method.")
    ] = True,
    clip_model: Annotated[
        Path | None, typer.Option(help="Folder of a CLIP model: adds its score of clip and prompt.")
    ] = None,
    video_model: Annotated[
        Path | None, typer.Option(help="Folder of a VideoMAE model: adds the Fréchet distance.")
    ] = None,
    lpips: Annotated[bool, typer.Option("--lpips", help="Add LPIPS; needs torchvision.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes of one thread each.")] = 1,
    out_json: Annotated[Path | None, typer.Option("--json", help="File for all figures.")] = None,
    out_html: Annotated[Path | None, typer.Option("--html", help="File for a page.")] = None,
    memory: Annotated[
        Path, typer.Option(help="File of clips measured so far, so that a stopped run goes on.")
    ] = Path("runs/compare.jsonl"),
) -> None:
    """Runs methods on the same clips and noise, beside as many plain steps as cost no less.

    Example:  hgc-video compare --methods "balanced,deepcache:interval=3,branch=1" --clips 2 --jobs 2
    """
    with errors_in_one_line(context):
        from ..files import check_distinct, check_writable, write_text

        check_distinct(
            {"--json": out_json, "--html": out_html, "--memory": memory},
            [("list of samples", samples)],
        )
        for path in filter(None, (out_json, out_html)):
            check_writable(path)
        quiet_libraries()
        from ..evaluate.measure import CompareConfig, Networks, frames_of
        from ..evaluate.methods import make_method, split_methods
        from ..evaluate.results_header import results_header, write_results
        from ..evaluate.run import compare as run
        from ..evaluate.samples import sample_set
        from ..evaluate.table import markdown, rows
        from ..evaluate.trials import kept_trials

        words = split_methods(methods)
        for word in words:
            make_method(word)  # a wrong name is refused before minutes are spent
        source = sample_set(model, samples, _FIRST_CLIP, clips, num_frames, scheduler)
        networks = Networks(clip_model, video_model, lpips)
        task = CompareConfig(source, num_inference_steps, converged_steps, seeds, networks)
        with kept_trials():
            figures = run(
                task, words, memory=memory, jobs=jobs, with_controls=controls, log=typer.echo
            )
            shown = {}
            if out_html is not None:
                shown = {word: frames_of(task, word, 0, 0) for word in ["off", *words]}
        found = rows(figures)
        typer.echo(markdown(found))
        setting = f"{source.count} clips of {num_frames} frames, {seeds} noises, "
        setting += f"{num_inference_steps} steps, {model}"
        setting += f", {scheduler}" * bool(scheduler)
        if out_json is not None:
            write_results(
                out_json, results_header(model, clips=source.count, seeds=seeds, processes=jobs),
                num_frames=num_frames, num_inference_steps=num_inference_steps,
                converged_steps=converged_steps, scheduler=scheduler, figures=figures,
            )  # fmt: skip
        if out_html is not None:
            from ..evaluate.page import page

            caption = (
                f"{setting}. Error bars: spread over clips and noises. Bold: nothing beats it."
            )
            write_text(out_html, page(found, shown, title="hgc_video compare", caption=caption))

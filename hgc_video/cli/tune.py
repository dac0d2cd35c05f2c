"""`hgc-video calibrate | search`: measure a model once, then find the schedule for a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .shell import app, errors_in_one_line, quiet_libraries

_FIRST_SAMPLE = 6000  # of the embedded model's clips: far from those of any evaluation
_FOLDER = Path("runs/calibrate")


@app.command(rich_help_panel="Schedules")
def calibrate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="YAML file to write.")],
    model: Annotated[str, typer.Option(help="puppet, or a folder in diffusers format.")] = "puppet",
    samples: Annotated[
        Path | None,
        typer.Option(
            help="YAML list of {control: clip.mp4, kind: pose, prompt: ..., seed: 0}. Default: the "
            "embedded model's own."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="Samples to measure. Default: all of the list, 4 of the model's own."),
    ] = None,
    num_frames: Annotated[int, typer.Option(help="Frames of each.")] = 4,
    num_inference_steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    scheduler: Annotated[
        str,
        typer.Option(help="Class of diffusers, as EulerAncestralDiscreteScheduler. Default: own."),
    ] = "",
    jobs: Annotated[int, typer.Option(help="Processes of one thread each.")] = 1,
    folder: Annotated[
        Path, typer.Option(help="Where measured samples are kept, so that a stopped run goes on.")
    ] = _FOLDER,
) -> None:
    """Measures how wrong reuse is at every step and what that does to the result.

    Example:  hgc-video calibrate --out runs/calibration.yaml --jobs 2
    """
    with errors_in_one_line(context):
        from ..files import check_distinct, check_writable

        check_distinct({"--out": out}, [("list of samples", samples)])
        check_writable(out)
        quiet_libraries()
        from ..evaluate.samples import sample_set
        from ..tune.calibrate import calibrate as measure

        source = sample_set(model, samples, _FIRST_SAMPLE, count, num_frames, scheduler)
        measured = measure(source, num_inference_steps, folder=folder, jobs=jobs, log=typer.echo)
        measured.save(out)
        typer.echo(f"calibration   {out}")


@app.command(rich_help_panel="Schedules")
def search(
    context: typer.Context,
    calibration: Annotated[Path, typer.Option(help="What hgc-video calibrate wrote.")],
    budget: Annotated[
        float, typer.Option(help="MACs of the schedule as a share of the uncached run.")
    ],
    out: Annotated[Path, typer.Option(help="YAML file to write.")],
    name: Annotated[str, typer.Option(help="What the schedule is called.")] = "searched",
    samples: Annotated[
        Path | None, typer.Option(help="As for calibrate: the clips that plans are judged on.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="Samples to judge on. Default: all of the list, 4 of the model's own."),
    ] = None,
    num_frames: Annotated[int, typer.Option(help="Frames of each.")] = 4,
    judgements: Annotated[
        int, typer.Option(help="Plans to judge by real runs, those it starts from among them.")
    ] = 48,
    converged_steps: Annotated[
        int,
        typer.Option(
            help="Judge against an uncached run of so many steps. Default: the uncached run."
        ),
    ] = 0,
    lengths: Annotated[
        str,
        typer.Option(help="Steps that the schedule may run, as multiples of those asked for."),
    ] = "1",
    letters: Annotated[
        str,
        typer.Option(
            help="What steps may be: F full, T without ControlNet, 1 and 2 up layers, H held. FH searches "
            "the timesteps of a solver."
        ),
    ] = "FTH12",
    slopes: Annotated[bool, typer.Option(help="Allow extrapolation.")] = True,
    coefficients: Annotated[
        int,
        typer.Option(
            min=1,
            max=3,
            help="Kept values that what is reused is combined of, by coefficients that are fitted to the "
            "calibration. 1: slopes alone.",
        ),
    ] = 1,
    gates: Annotated[bool, typer.Option(help="Allow one branch after a gate.")] = True,
    online: Annotated[
        bool, typer.Option("--online", help="Tell slopes by how far the latents come at run time.")
    ] = False,
    start: Annotated[
        Path | None, typer.Option(help="A schedule found before, to climb on from.")
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(help="Class of diffusers, as EulerAncestralDiscreteScheduler. Default: own."),
    ] = "",
    jobs: Annotated[int, typer.Option(help="Processes of one thread each.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same schedule.")] = 0,
    memory: Annotated[
        Path, typer.Option(help="File of judgements made so far, so that a stopped run goes on.")
    ] = _FOLDER / "judgements.jsonl",
) -> None:
    """Finds the schedule that changes the result least for its MACs.

    Use it with:  hgc-video generate --preset searched:file=FILE ...

    Example:  hgc-video search --calibration runs/calibration.yaml --budget 0.25
    --out runs/quarter.yaml --jobs 2
    """
    with errors_in_one_line(context):
        from ..files import check_distinct, check_writable
        from ..plan.calibration import load_calibration

        check_distinct(
            {"--out": out, "--memory": memory},
            [("list of samples", samples), ("calibration", calibration)],
        )
        check_writable(out)
        quiet_libraries()
        from ..evaluate.samples import sample_set
        from ..plan.policies.searched import load_coded_schedule
        from ..plan.search.hill_climb import Space
        from ..tune.search import SearchConfig, with_origin
        from ..tune.search import search as find

        measured = load_calibration(calibration)
        model, steps = measured.setting.model, measured.setting.num_inference_steps
        source = sample_set(model, samples, _FIRST_SAMPLE, count, num_frames, scheduler)
        task = SearchConfig(
            source, steps, budget, converged_steps,
            _numbers("--lengths", lengths),
            Space(letters, slopes, gates, online), judgements, jobs, seed,
            (load_coded_schedule(start),) if start is not None else (), coefficients,
        )  # fmt: skip
        found = find(task, measured, memory=memory, log=typer.echo)
        with_origin(found, task, measured, name).save(out)
        told = {"planned": found.planned_db, "uniform": found.uniform_db}
        others = ", ".join(f"{kind} {db:.1f}" for kind, db in told.items() if db is not None)
        typer.echo(
            f"schedule      {out}: {100 * (1 - found.share):.1f} % saved at {found.closeness_db:.1f} dB "
            f"({others or 'no planned or uniform one was judged'})"
        )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of a list with commas; InputError names the part that is none."""
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise InputError(
                f'{option} has "{part}", which is no number; give numbers with commas between, as 1,1.6'
            ) from None
    return tuple(found)

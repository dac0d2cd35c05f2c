"""`hgc-video batch`: many shots, worked off by all devices of a machine or of a Ray cluster."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..jobs.passing_faults import WAIT_S
from .shell import app, errors_in_one_line, quiet_libraries, say, signals_end
from .shot import OUTSIDE

if TYPE_CHECKING:
    from ..jobs.drive import Stop
    from ..jobs.queue_status import Status


@app.command(rich_help_panel="Clips")
def batch(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(help="A list of jobs, a folder of shot files, or the folder of a batch."),
    ],
    seeds: Annotated[
        int | None, typer.Option(help="So many seeds of every shot, from its own on.")
    ] = None,
    matrix: Annotated[
        list[str] | None,
        typer.Option(
            help="Every shot with each of these values, as preset=balanced,fast. Repeat it."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Names of the results in the batch folder, as {name}-{preset}-seed{seed}.mp4; {number:03} "
            "counts. Default: {name} and what is varied."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Batch folder. Default: batch in the folder, or LIST.batch.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (extra cluster).")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Clips at a time. Default: one for each GPU, else one.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="Devices of this machine, as cuda:0,cuda:1. Default: all GPUs."),
    ] = None,
    address: Annotated[str, typer.Option(help="Ray cluster: auto, or ray://HOST:10001.")] = "auto",
    storage: Annotated[
        str | None,
        typer.Option(help="Folder or fsspec URL that all machines reach, for unfinished runs."),
    ] = None,
    wait_s: Annotated[
        int,
        typer.Option(
            help="Seconds to wait, at a time, for a disk that is full or away; 0 ends the batch."
        ),
    ] = WAIT_S,
    status: Annotated[bool, typer.Option("--status", help="Show the queue; make nothing.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try jobs again that failed or were set aside.")
    ] = False,
    retry: Annotated[
        list[int] | None,
        typer.Option(help="Try the job with this number again, a cancelled one too. Repeat it."),
    ] = None,
    cancel: Annotated[int | None, typer.Option(help="Cancel the job with this number.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    allow_outside: OUTSIDE = False,
) -> None:
    """Makes the clips of many shots, each once; what was stopped goes on when it is called again.

    Several calls on one folder work together. Answers 1 where jobs have failed, with a list.

    Example:  hgc-video batch shots/ --seeds 4 --matrix preset=balanced,fast
    """
    with errors_in_one_line(context):
        from ..files import user_path
        from ..jobs.queue_table import batch_folder

        source = user_path(source)
        place = batch_folder(source, folder)
        if status or cancel is not None:
            _look(place, cancel, as_json)
            return
        quiet_libraries()
        from ..jobs.batch import EngineChoice
        from ..jobs.job_list import parse_matrix

        chosen = EngineChoice(engine, workers, _devices(devices), address, storage, wait_s)
        variants = {"seeds": seeds, "matrix": parse_matrix(matrix or []), "pattern": name}
        _add(source, place, variants, allow_outside, as_json)
        _queue_again(place, retry or (), retry_failed, as_json)
        _work_off(place, chosen, as_json)


def _devices(told: str | None) -> tuple[str, ...]:
    return tuple(device.strip() for device in told.split(",")) if told else ()


def _look(place: Path, cancel: int | None, as_json: bool) -> None:
    """Shows a queue, or cancels a job of it."""
    from ..errors import InputError
    from ..jobs.queue import Queue
    from ..jobs.queue_table import has_table

    if not has_table(place):
        raise InputError(f'"{place}" is no batch folder; start one with hgc-video batch SOURCE')
    queue = Queue(place)
    if cancel is not None:
        state = queue.cancel(cancel)
        if not state:
            raise InputError(
                f"there is no job {cancel} in {place}; hgc-video batch --status lists them"
            )
        if state == "done":
            raise InputError(f"job {cancel} is done; remove its clip instead")
        told = "stops at its next step" if state == "running" else "is cancelled"
        _echo({"event": "cancelled", "job": cancel, "was": state}, f"job {cancel} {told}", as_json)
        return
    seen = _status(queue)
    _echo(seen.to_dict(), f"{place}\n{seen}", as_json)


def _echo(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data, ensure_ascii=False))
    else:
        say(text)


def _status(queue: Any) -> Status:
    from ..jobs.queue_status import status_of

    return status_of(queue, time.time())


def _add(
    source: Path, place: Path, variants: dict[str, Any], allow_outside: bool, as_json: bool
) -> None:
    """Puts the jobs of the source into the queue; of a batch folder they are there."""
    from ..errors import InputError
    from ..jobs.batch import add_to, listed_jobs
    from ..jobs.queue_table import has_table

    if source == place and has_table(place):
        if any(variants.values()):
            raise InputError(
                f'"{source}" is the folder of a batch, whose jobs are there; seeds, matrix and name are '
                "for a list or a folder of shots"
            )
    else:
        added = add_to(place, listed_jobs(source, **variants, allow_outside=allow_outside))
        _echo({"event": "added", **vars(added)}, f"{place}: {added}", as_json)


def _queue_again(place: Path, jobs: Sequence[int], failed: bool, as_json: bool) -> None:
    """Puts jobs that ended without a result back into the queue: those named, and all that failed."""
    from ..jobs.queue import Queue

    if not jobs and not failed:
        return
    queue = Queue(place)
    queue.retry(jobs)
    count = len(jobs) + (queue.retry_failed() if failed else 0)
    _echo({"event": "queued again", "jobs": count}, f"queued again: {count}", as_json)


def _work_off(place: Path, chosen: Any, as_json: bool) -> None:
    """Makes what is queued, then says what came of it all."""
    from ..files import as_argument
    from ..jobs.batch import work_off
    from ..jobs.drive import Stop
    from ..jobs.queue import Queue
    from .batch_lines import telling

    queue, stop = Queue(place), Stop()
    go_on = f"go on with:  hgc-video batch {as_argument(place)}"
    try:
        with _interruptible(stop), telling(as_json, _status(queue).counts["queued"]) as tell:
            work_off(place, chosen, tell, stop)
    except KeyboardInterrupt:
        signals_end()
        typer.echo(f"stopped at once; {go_on}", err=True)
        raise typer.Exit(130) from None
    seen = _status(queue)
    _echo({"event": "end", **seen.to_dict()}, str(seen), as_json)
    if stop.asked:
        signals_end()
        typer.echo(f"stopped; {go_on}", err=True)
        raise typer.Exit(130)
    if seen.lost:
        typer.echo(f"{len(seen.lost)} jobs have no result; try again with --retry-failed", err=True)
        raise typer.Exit(1)


@contextmanager
def _interruptible(stop: Stop) -> Iterator[None]:
    """Ctrl-C once finishes the steps that run, twice ends at once."""

    def on_signal(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        typer.echo("stopping after this step; Ctrl-C again stops at once", err=True)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

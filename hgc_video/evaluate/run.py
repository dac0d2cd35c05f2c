"""Compares methods over clips and noises; every clip's figures are kept, so that a stopped run goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..models.identity import model_hash
from .jobs import Map, workers
from .measure import CompareConfig, Figures, Networks, measure
from .methods import controls, make_method
from .results_file import ResultsFile
from .trials import kept_trials, trials

_FILES = "files"  # of a kept row: the checksum of what its method read


def compare(
    task: CompareConfig, words: list[str], *, memory: Path, jobs: int = 1, with_controls: bool = True,
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:  # fmt: skip
    """The figures of all methods on all clips and noises; `memory` is the file of those measured so far."""
    with kept_trials(), workers(jobs) as each:
        return _compared(task, words, memory, each, with_controls, log)


def _compared(
    task: CompareConfig, words: list[str], memory: Path, each: Map, with_controls: bool,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    words = ["off", *(word for word in words if word != "off")]
    if with_controls:
        with torch.no_grad():
            graph = trials(task.source)(0, task.num_inference_steps).graph
        methods = [make_method(word) for word in words]
        words += [m.name for m in controls(methods, graph, task.num_inference_steps)]
    files = {word: make_method(word).files_sha256() for word in words}
    results, name = ResultsFile(memory), _setting(task)
    results.check_writable()
    known = _known(results, name, task, files)
    todo = []
    # One noise of every clip first: a stopped run has seen all clips.
    for seed in range(task.seeds):
        for clip in range(task.source.count):
            missing = [word for word in words if (word, clip, seed) not in known]
            if missing:
                todo.append((missing, clip, seed))
    asked = f"{len(words)} methods on {task.source.count} clips with {task.seeds} noises"
    log(f"{asked}: {len(todo)} to run")
    each(partial(_job, task, results, name, files), todo)
    known = _known(results, name, task, files)
    every = itertools.product(words, range(task.source.count), range(task.seeds))
    results.require(every, known)
    return [known[key] for key in sorted(known, key=str)]


def _job(
    task: CompareConfig, results: ResultsFile, name: str, files: dict[str, str],
    job: tuple[list[str], int, int],
) -> None:  # fmt: skip
    words, clip, seed = job
    found = [{_FILES: files[one["method"]], **one} for one in measure(task, words, clip, seed)]
    results.add(name, found)


def _known(
    results: ResultsFile, name: str, task: CompareConfig, files: dict[str, str]
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """What was measured of these methods with the files that they read now."""
    known = {}
    for figures in results.read(name, Figures):
        read, method = figures.pop(_FILES, ""), figures["method"]
        wanted = figures["clip"] < task.source.count and figures["seed"] < task.seeds
        if wanted and files.get(method) == read:
            known[method, figures["clip"], figures["seed"]] = figures
    return known


def _setting(task: CompareConfig) -> str:
    source = task.source
    return (
        "compare "
        + (
            f"{source.model} {model_hash(source.model)} {source.list_identity()} {source.first} "
            f"{source.num_frames} {task.num_inference_steps} {task.converged_steps} {source.scheduler}"
        ).rstrip()
        + _judged_by(task.networks)
    )


def _judged_by(networks: Networks) -> str:
    return "" if networks == Networks() else f" {networks}"

#!/usr/bin/env python
"""Changes the code of a few modules a little, thousands of times, and asks whether a test notices.

mutmut makes the mutants (another operator, constant or argument) and runs the tests that reach each one, in
a copy of the checkout. A mutant that survives is a change that no test sees: either it changes nothing that
can be told, or a test is missing. Modules are chosen that quick tests alone decide upon: schedules, what is
live, policies, the queue.

    pip install mutmut                         3.8 or newer; no part of the extras
    python scripts/mutants.py                  all modules of the list, one after the other
    python scripts/mutants.py --module plan/liveness.py

A stopped campaign goes on in its folder, and a module whose code or tests have changed is best begun anew
(--folder). Linux, macOS.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeGuard

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.results_header import results_header, write_results  # noqa: E402

_PLAN, _JOBS, _CACHE = "tests/plan", "tests/jobs", "tests/cache"
_POLICIES, _SCHEDULE = f"{_PLAN}/policies/test_policies.py", f"{_PLAN}/test_schedule.py"
_WHOLE, _DECIDERS, _GUARD = (
    f"{_PLAN}/policies/test_{name}.py" for name in ("whole_steps", "deciders", "guard")
)
_BLOCKS, _LOSSLESS, _REGISTRY = (
    f"{_PLAN}/policies/test_{name}.py" for name in ("block_policies", "lossless", "registry")
)
_SEARCHED, _SEARCH = f"{_PLAN}/policies/test_searched.py", f"{_PLAN}/search/test_search.py"
_MEMORY = (f"{_PLAN}/memory/test_budget.py", f"{_PLAN}/memory/test_placement.py")
_STORED = (f"{_CACHE}/test_store.py", f"{_JOBS}/test_shards.py")
_LATE = tuple(f"{_CACHE}/test_{name}.py" for name in ("overflow", "sada", "guard"))
_CALLS = tuple(
    f"{_CACHE}/test_{name}.py"
    for name in ("engine_calls", "engine_decides", "model_wrappers", "engine")
)
_SHOT, _JOB_LIST = f"{_JOBS}/test_shot.py", f"{_JOBS}/test_job_list.py"
_QUEUE = (f"{_JOBS}/test_queue.py", f"{_JOBS}/test_queue_file.py")
_DRIVE = (f"{_JOBS}/test_drive.py", f"{_JOBS}/test_drive_waits.py")
_CHECKPOINT = f"{_JOBS}/test_checkpoint.py"
_KEPT = (f"{_JOBS}/test_shards.py", f"{_JOBS}/test_checkpoint_state.py", _CHECKPOINT)
_ENGINES = (f"{_JOBS}/test_local_engine.py",)
# Modules, and the tests that are to notice.
MODULES: dict[str, tuple[str, ...]] = {
    "plan/adaptive.py": (
        f"{_PLAN}/test_adaptive.py",
        _DECIDERS,
        _GUARD,
        f"{_PLAN}/test_compose.py",
        f"{_PLAN}/test_validate.py",
    ),
    "plan/calibration.py": (
        f"{_PLAN}/test_calibration.py",
        _SEARCH,
        _SEARCHED,
        _WHOLE,
        f"{_PLAN}/policies/test_ucache.py",
    ),
    "plan/chart.py": (f"{_PLAN}/test_chart.py",),
    "plan/checkpoints.py": (f"{_PLAN}/test_checkpoints.py",),
    "plan/coefficients.py": (
        f"{_PLAN}/test_coefficients.py",
        _SEARCHED,
        _WHOLE,
        _SCHEDULE,
        f"{_PLAN}/test_validate.py",
    ),
    "plan/compose.py": (f"{_PLAN}/test_compose.py",),
    "plan/cost.py": (f"{_PLAN}/test_cost.py", _SCHEDULE, *_MEMORY, f"{_PLAN}/policies/test_hgc.py"),
    "plan/devices.py": (f"{_PLAN}/test_devices.py",),
    "plan/explain.py": (f"{_PLAN}/test_explain.py", _SCHEDULE, *_MEMORY, f"{_PLAN}/test_chart.py"),
    "plan/graph.py": (f"{_PLAN}/test_graph.py", f"{_PLAN}/test_liveness.py", _SCHEDULE),
    "plan/least_squares.py": (f"{_PLAN}/test_linear_fit.py", _WHOLE),
    "plan/linear_fit.py": (f"{_PLAN}/test_linear_fit.py", _WHOLE),
    "plan/liveness.py": (f"{_PLAN}/test_liveness.py", _SCHEDULE),
    "plan/plain_yaml.py": (
        f"{_PLAN}/test_plain_yaml.py",
        "tests/media/test_limits.py",
        f"{_PLAN}/test_presets.py",
    ),
    "plan/prediction_path.py": (f"{_PLAN}/test_prediction_path.py", _GUARD),
    "plan/presets.py": (f"{_PLAN}/test_presets.py",),
    "plan/quality_map.py": (f"{_PLAN}/test_quality_map.py",),
    "plan/resample.py": (f"{_PLAN}/test_resample.py",),
    "plan/run_plan.py": (f"{_PLAN}/test_run_plan.py",),
    "plan/schedule.py": (_SCHEDULE, f"{_PLAN}/test_old_names.py"),
    "plan/step_codes.py": (f"{_PLAN}/test_resample.py",),
    "plan/step_grid.py": (f"{_PLAN}/test_chart.py", _SCHEDULE),
    "plan/validate.py": (f"{_PLAN}/test_validate.py",),
    "plan/memory/budget.py": (f"{_PLAN}/memory/test_budget.py",),
    "plan/memory/placement.py": (f"{_PLAN}/memory/test_placement.py",),
    "plan/memory/throughput.py": (f"{_PLAN}/test_devices.py", *_MEMORY),
    "plan/memory/windows.py": (f"{_PLAN}/memory/test_windows.py",),
    "plan/policies/base.py": (_REGISTRY, _POLICIES),
    "plan/policies/block_caching.py": (_BLOCKS, _POLICIES, _SEARCHED),
    "plan/policies/calibrated_spectrum.py": (_WHOLE, _POLICIES),
    "plan/policies/clockwork.py": (_BLOCKS, _POLICIES),
    "plan/policies/deepcache.py": (f"{_PLAN}/policies/test_deepcache.py", _POLICIES),
    "plan/policies/easycache.py": (_BLOCKS, _DECIDERS, _POLICIES),
    "plan/policies/faster_diffusion.py": (_BLOCKS, _POLICIES),
    "plan/policies/fastercache.py": (_BLOCKS, _POLICIES),
    "plan/policies/fewer_steps.py": (_BLOCKS, _POLICIES, _WHOLE),
    "plan/policies/fitted.py": (_WHOLE, _POLICIES),
    "plan/policies/full.py": (_BLOCKS, _POLICIES),
    "plan/policies/guard.py": (_GUARD, f"{_PLAN}/policies/test_guard_limits.py", _DECIDERS),
    "plan/policies/guidance_gate.py": (_BLOCKS, _POLICIES),
    "plan/policies/hgc.py": (f"{_PLAN}/policies/test_hgc.py", _POLICIES),
    "plan/policies/hgc_online.py": (_BLOCKS, _DECIDERS, _POLICIES),
    "plan/policies/hicache.py": (_WHOLE, _POLICIES),
    "plan/policies/l2p.py": (_WHOLE, _POLICIES),
    "plan/policies/lossless.py": (_LOSSLESS, _SCHEDULE, _DECIDERS),
    "plan/policies/net.py": (f"{_PLAN}/policies/test_net.py",),
    "plan/policies/pab.py": (_BLOCKS, _POLICIES),
    "plan/policies/registry.py": (_REGISTRY, _POLICIES),
    "plan/policies/resilphase.py": (_WHOLE, _POLICIES),
    "plan/policies/sada.py": (_DECIDERS, _BLOCKS, f"{_CACHE}/test_sada.py"),
    "plan/policies/searched.py": (_SEARCHED,),
    "plan/policies/spectrum.py": (_WHOLE, _POLICIES),
    "plan/policies/taylorseer.py": (_WHOLE, _POLICIES),
    "plan/policies/tgate.py": (_POLICIES,),
    "plan/policies/ucache.py": (f"{_PLAN}/policies/test_ucache.py", _DECIDERS, _BLOCKS),
    "plan/policies/whole_steps.py": (_WHOLE, _POLICIES),
    "plan/search/fit_steps.py": (f"{_PLAN}/search/test_moves.py", _SEARCH),
    "plan/search/hill_climb.py": (f"{_PLAN}/search/test_moves.py", _SEARCH),
    "plan/search/moves.py": (
        f"{_PLAN}/search/test_moves.py",
        _SEARCH,
    ),
    "plan/search/segments.py": (
        f"{_PLAN}/search/test_segments.py",
        _SEARCH,
    ),
    "plan/search/transfer.py": (f"{_PLAN}/test_presets.py", _SEARCH),
    "cache/agreement.py": (f"{_CACHE}/test_agreement.py",),
    "cache/anchors.py": (f"{_CACHE}/test_anchors.py",),
    "cache/cfg.py": (f"{_CACHE}/test_grains.py",),
    "cache/combination.py": (f"{_CACHE}/test_combination.py",),
    "cache/compiled.py": (f"{_CACHE}/test_compiled.py", f"{_CACHE}/test_model_sites.py"),
    "cache/current_step.py": (f"{_CACHE}/test_current_step.py",),
    "cache/drift.py": (f"{_CACHE}/test_guard.py", f"{_CACHE}/test_sada.py"),
    "cache/engine.py": _CALLS,
    "cache/execution_log.py": (f"{_CACHE}/test_execution_log.py",),
    "cache/extrapolation.py": (f"{_CACHE}/test_residuals.py", f"{_CACHE}/test_grains.py"),
    "cache/finite.py": (f"{_CACHE}/test_finite.py",),
    "cache/idle_windows.py": (f"{_CACHE}/test_idle_windows.py",),
    "cache/inputs.py": (f"{_CACHE}/test_inputs.py",),
    "cache/installer.py": (f"{_CACHE}/test_installer.py",),
    "cache/late_numbers.py": (f"{_CACHE}/test_late_numbers.py",),
    "cache/latent_progress.py": (f"{_CACHE}/test_follow.py",),
    "cache/model_calls.py": (f"{_CACHE}/test_model_calls.py",),
    "cache/model_sites.py": (f"{_CACHE}/test_model_sites.py",),
    "cache/model_wrappers.py": _CALLS,
    "cache/nbytes.py": (f"{_CACHE}/test_nbytes.py", *_STORED),
    "cache/noise_levels.py": (f"{_CACHE}/test_noise_levels.py", *_LATE),
    "cache/offload.py": _STORED,
    "cache/overflow.py": (f"{_CACHE}/test_overflow.py",),
    "cache/patch.py": (f"{_CACHE}/test_patch.py",),
    "cache/prediction.py": (f"{_CACHE}/test_prediction_cache.py",),
    "cache/prepared.py": (f"{_CACHE}/test_prepared.py",),
    "cache/residual_inputs.py": (f"{_CACHE}/test_residuals.py",),
    "cache/shared_rows.py": (f"{_CACHE}/test_shared_rows.py",),
    "cache/split.py": (f"{_CACHE}/test_split.py",),
    "cache/stock_loop.py": (
        *(f"{_CACHE}/test_stock_{name}.py" for name in ("loop", "scheduler", "threads")),
        "tests/test_threads.py",
    ),
    "cache/store.py": _STORED,
    "cache/wrappers.py": (f"{_CACHE}/test_wrappers.py", f"{_CACHE}/test_model_sites.py"),
    "jobs/add_jobs.py": (f"{_JOBS}/test_add_jobs.py", *_QUEUE, _JOB_LIST),
    "jobs/batch.py": (f"{_JOBS}/test_batch_calls.py",),
    "jobs/clip_facts.py": (f"{_JOBS}/test_clip_facts.py", _SHOT),
    "jobs/drive.py": _DRIVE,
    "jobs/failures.py": (f"{_JOBS}/test_failures.py",),
    "jobs/fingerprint.py": (f"{_JOBS}/test_fingerprint.py", f"{_JOBS}/test_add_jobs.py"),
    "jobs/job_list.py": (_JOB_LIST,),
    "jobs/loaded_model.py": (f"{_JOBS}/test_worker.py",),
    "jobs/owner.py": (f"{_JOBS}/test_owner.py",),
    "jobs/left_work.py": (f"{_JOBS}/test_left_work.py",),
    "jobs/passing_faults.py": _DRIVE,
    "jobs/preset_choice.py": (f"{_JOBS}/test_preset_choice.py", _SHOT),
    "jobs/queue.py": _QUEUE,
    "jobs/queue_status.py": _QUEUE,
    "jobs/queue_table.py": _QUEUE,
    "jobs/result_names.py": (_JOB_LIST,),
    "jobs/resume.py": (f"{_JOBS}/test_resume.py", _CHECKPOINT),
    "jobs/run.py": (_SHOT, f"{_JOBS}/test_worker.py"),
    "jobs/schema.py": (f"{_JOBS}/test_schema.py", _SHOT),
    "jobs/shot.py": (_SHOT, _JOB_LIST),
    "jobs/shot_template.py": (_SHOT,),
    "jobs/worker.py": (f"{_JOBS}/test_worker.py",),
    "jobs/yaml_file.py": (f"{_JOBS}/test_yaml_file.py",),
    "jobs/checkpoint/description.py": (f"{_JOBS}/test_description.py", _CHECKPOINT),
    "jobs/checkpoint/durable.py": (f"{_JOBS}/test_durable.py", *_KEPT),
    "jobs/checkpoint/keeper.py": (f"{_JOBS}/test_keeper.py", _CHECKPOINT),
    "jobs/checkpoint/shards.py": (f"{_JOBS}/test_shards.py",),
    "jobs/checkpoint/snapshot.py": (f"{_JOBS}/test_snapshot.py", *_KEPT),
    "jobs/checkpoint/work.py": (f"{_JOBS}/test_work.py", _CHECKPOINT),
    "jobs/checkpoint/work_folder.py": (f"{_JOBS}/test_work_folder.py", *_KEPT),
    "jobs/checkpoint/writer.py": (f"{_JOBS}/test_writer.py", *_KEPT),
    "jobs/engines/inputs.py": (f"{_JOBS}/test_inputs.py",),
    "jobs/engines/local.py": _ENGINES,
    "jobs/engines/local_process.py": _ENGINES,
    "jobs/engines/work_sync.py": (f"{_JOBS}/test_work_sync.py",),
}
# What mutmut notes of a mutant's tests.
_VERDICTS = {0: "survived", 33: "no tests", 5: "no tests", 1: "killed", 3: "killed"}
_TIMES_OUT = "timed out"
_SIDES = ("-  ", "+  ", "-de", "+de")  # of a difference: lines of a function, and its first one
_COPIED = ("hgc_video", "tests", "configs", "examples", "scripts", "pyproject.toml")


def prepare(folder: Path, modules: list[str]) -> None:
    """A copy of the checkout with mutmut's settings; one that is there already is used as it is."""
    if not (folder / "hgc_video").is_dir():
        for name in _COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "state")
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, folder / name)
    # There before mutmut begins, or the import system takes `tests` for something else.
    shutil.copytree(ROOT / "tests", folder / "mutants" / "tests", dirs_exist_ok=True)
    tests = dict.fromkeys(test for module in modules for test in MODULES[module])
    settings = {
        "source_paths": ["hgc_video"],
        "only_mutate": [f"hgc_video/{module}" for module in modules],
        "pytest_add_cli_args_test_selection": list(tests),
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "also_copy": list(_COPIED[1:]),
    }
    lines = [
        f"{name}=\n" + "".join(f"    {v}\n" for v in values) for name, values in settings.items()
    ]
    (folder / "setup.cfg").write_text("[mutmut]\n" + "".join(lines))


def mutmut(folder: Path, *arguments: str, until: float | None = None) -> str:
    """What a command of mutmut prints; it is ended at a time of `time.monotonic`."""
    paths = [str(folder / "mutants"), *filter(None, [os.environ.get("MUTMUT_PATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    left = None if until is None else max(1.0, until - time.monotonic())
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=left,
        )
    except subprocess.TimeoutExpired:
        return ""
    if done.returncode:
        sys.exit(f"mutmut ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def row(folder: Path, module: str) -> dict[str, Any] | None:
    """A module's counts and its survivors with their changes; those that change nothing but the words of a
    message apart. None while some were not tried."""
    mutated = folder / "mutants" / "hgc_video" / module
    meta = mutated.with_name(f"{mutated.name}.meta")
    codes = json.loads(meta.read_text())["exit_code_by_key"] if meta.is_file() else {}
    if not codes or None in codes.values():
        return None
    verdicts = {name: _VERDICTS.get(code, _TIMES_OUT) for name, code in codes.items()}
    counts = {v: list(verdicts.values()).count(v) for v in sorted(set(verdicts.values()))}
    text = mutated.read_text()
    functions = {node.name: node for node in ast.walk(ast.parse(text)) if _is_function(node)}
    survivors, in_words = {}, 0
    for name in (name for name, verdict in verdicts.items() if verdict == "survived"):
        short = name.rpartition(".")[2]
        own, other = (functions[n] for n in (f"{short.rpartition('_')[0]}_orig", short))
        if _without_words(own) == _without_words(other):
            in_words += 1
        else:
            survivors[short] = _change(own, other)
    return {"mutants": len(codes), **counts, "survived in words": in_words, "survivors": survivors}


def _is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef)


def _without_words(function: ast.FunctionDef) -> str:
    """A function but for its name and the words of its messages; a text without a space may be more."""
    bare = _unnamed(function)
    for node in ast.walk(bare):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            node.value = ""
    return ast.dump(bare)


def _unnamed(function: ast.FunctionDef) -> ast.FunctionDef:
    """A copy under one name for all; default values of arguments are part of it."""
    copy = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(copy, ast.FunctionDef)
    copy.name = "f"
    return copy


def _change(own: ast.FunctionDef, other: ast.FunctionDef) -> list[str]:
    """The lines that differ."""
    one, two = (ast.unparse(_unnamed(function)).splitlines() for function in (own, other))
    return [line for line in difflib.unified_diff(one, two, n=0, lineterm="") if line[:3] in _SIDES]


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| module | mutants | killed | survived | in words of a message | no test reaches them |",
        "|---" * 6 + "|",
    ]
    for module, told in found.items():
        killed = told.get("killed", 0) + told.get(_TIMES_OUT, 0)
        lines.append(
            f"| {module} | {told['mutants']} | {killed} | {len(told['survivors'])} "
            f"| {told['survived in words']} | {told.get('no tests', 0)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the options, has the mutants made and tried, and tells what survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--module", nargs="*", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--minutes", type=float, default=60.0, help="no longer than this")
    parser.add_argument("--folder", type=Path, default=Path("runs/mutants"), help="the copy")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file of counts and survivors; rows of other modules stay in it",
    )
    args = parser.parse_args()
    folder, until = args.folder.absolute(), time.monotonic() + 60 * args.minutes
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, args.module)
    found = {}
    for module in args.module:
        if time.monotonic() < until and row(folder, module) is None:
            mutmut(folder, "run", "--max-children", "1", _names(module), until=until)
        if told := row(folder, module):
            found[module] = told
            print(f"{module}: {len(told['survivors'])} survived", file=sys.stderr, flush=True)
    print(markdown(found))
    if args.out is not None:
        header = results_header(None)
        known = json.loads(args.out.read_text())["modules"] if args.out.is_file() else {}
        own = {module: {"commit": header["commit"], **told} for module, told in found.items()}
        write_results(args.out, header, modules={**known, **own})
    if not found:
        sys.exit("no module was tried to its end; give it more --minutes")


def _names(module: str) -> str:
    """A pattern of the names of a module's mutants."""
    return f"hgc_video.{module.removesuffix('.py').replace('/', '.')}.*"


if __name__ == "__main__":
    main()

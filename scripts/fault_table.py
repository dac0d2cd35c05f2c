"""What callbacks, progress bars, foreign calls and FreeNoise do to a run under `enable_cache`: case x policy.

Every case runs on stock pipelines of tiny random models, without a cache and under each policy. Told are
the case's own effect (relative distance of the stock result to the stock result without it), the
distance of the cached result to the stock result of the same case, and for comparison the distance
that the policy has without the case. Writes JSON, and prints a Markdown table.

    python scripts/fault_table.py --out configs/results/faults.json
    python scripts/fault_table.py --pipeline "sd controlnet" --policy lossless --steps 6
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hgc_video
from hgc_video.errors import HGCVideoError
from hgc_video.evaluate.results_header import results_header, write_results
from tests import tiny_pipelines as tiny

PIPELINES = (
    "animatediff",
    "controlnet",
    "animatediff sdxl",
    "svd",
    "sd controlnet",
    "sdxl controlnet",
)
POLICIES = ("off", "full", "lossless", "balanced", "deepcache", "hgc")
AT = 2  # the step after which the callbacks change something
LORA = ["to_q", "to_k", "to_v"]

Callback = Callable[[Any, int, dict[str, Tensor]], None]


def relative(given: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of what was expected."""
    return float((given - expected).square().mean().sqrt() / expected.square().mean().sqrt())


class Bench:
    """One pipeline, called the same way every time."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.pipe = name, steps, tiny.make(name)

    def call(self, callback: Callback | None = None, **more: Any) -> Tensor:
        """The final latents; `callback` sees the tensors after step AT."""
        if callback is not None:
            names = list(self.pipe._callback_tensor_inputs)

            def end(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                if index == AT:
                    callback(pipe, index, tensors)
                return tensors

            more |= {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": names}
        given = {"num_inference_steps": self.steps, **more}
        return tiny.call(self.pipe, self.name, **given)

    def reads(self, tensor: str) -> bool:
        """Whether the pipeline's callbacks may return this tensor."""
        return tensor in self.pipe._callback_tensor_inputs

    @property
    def takes_lora(self) -> bool:
        """Whether diffusers loads adapters into this UNet; Stable Video Diffusion's has no such methods."""
        return hasattr(self.pipe.unet, "add_adapter")


# Cases. Each gives the results of a run, or None where the pipeline has no such thing.


def unchanged(bench: Bench) -> list[Tensor]:
    """Nothing happens."""
    return [bench.call()]


def lora_active(bench: Bench) -> list[Tensor] | None:
    """Nothing happens to a run with a LoRA."""
    if not bench.takes_lora:
        return None
    with _adapters(bench.pipe):
        return [bench.call()]


def prompt_replaced(bench: Bench) -> list[Tensor] | None:
    """A callback returns other prompt_embeds."""
    if not bench.reads("prompt_embeds"):
        return None

    def change(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        tensors["prompt_embeds"] = tensors["prompt_embeds"].flip(-1)

    return [bench.call(change)]


def prompt_written_to(bench: Bench) -> list[Tensor] | None:
    """A callback writes to prompt_embeds in place."""
    if not bench.reads("prompt_embeds"):
        return None
    return [bench.call(lambda pipe, index, tensors: tensors["prompt_embeds"].mul_(-1))]


def negative_prompt_replaced(bench: Bench) -> list[Tensor] | None:
    """A callback returns prompt_embeds whose unconditional half is another one."""
    if not bench.reads("prompt_embeds"):
        return None

    def change(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        without, prompt = tensors["prompt_embeds"].chunk(2)
        tensors["prompt_embeds"] = torch.cat([without + 1, prompt])  # SDXL's are zeros

    return [bench.call(change)]


def pooled_text_replaced(bench: Bench) -> list[Tensor] | None:
    """A callback returns other add_text_embeds."""
    if not bench.reads("add_text_embeds"):
        return None

    def change(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        tensors["add_text_embeds"] = tensors["add_text_embeds"].flip(-1)

    return [bench.call(change)]


def control_replaced(bench: Bench) -> list[Tensor] | None:
    """A callback returns another control image."""
    if not bench.reads("image"):
        return None

    def change(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        tensors["image"] = 9 * (1 - tensors["image"])

    return [bench.call(change)]


def _adapter(pipe: Any, name: str, seed: int) -> None:
    import peft

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules=LORA, init_lora_weights=False)
    pipe.unet.add_adapter(config, adapter_name=name)


@contextmanager
def _adapters(pipe: Any) -> Iterator[None]:
    """Two LoRAs while the block lasts, the first of them active."""
    try:
        _adapter(pipe, "one", 11)
        _adapter(pipe, "two", 12)
        pipe.unet.set_adapters("one")
        yield
    finally:
        if hasattr(pipe.unet, "peft_config"):
            pipe.unet.unload_lora()


def lora_switched(bench: Bench) -> list[Tensor] | None:
    """set_adapters in a callback."""
    if not bench.takes_lora:
        return None
    with _adapters(bench.pipe):
        return [bench.call(lambda pipe, index, tensors: pipe.unet.set_adapters("two"))]


def lora_scaled(bench: Bench) -> list[Tensor] | None:
    """Another scale of the active LoRA in a callback."""
    if not bench.takes_lora:
        return None
    with _adapters(bench.pipe):
        return [bench.call(lambda pipe, index, tensors: pipe.unet.set_adapters("one", 0.2))]


def lora_loaded(bench: Bench) -> list[Tensor] | None:
    """A LoRA loaded in a callback."""
    if not bench.takes_lora:
        return None
    try:
        return [bench.call(lambda pipe, index, tensors: _adapter(pipe, "one", 11))]
    finally:
        bench.pipe.unet.unload_lora()


def lora_unloaded(bench: Bench) -> list[Tensor] | None:
    """A LoRA unloaded in a callback."""
    if not bench.takes_lora:
        return None
    with _adapters(bench.pipe):
        return [bench.call(lambda pipe, index, tensors: pipe.unet.unload_lora())]


def lora_disabled_for_a_step(bench: Bench) -> list[Tensor] | None:
    """disable_adapters in one callback, enable_adapters two steps later."""
    if not bench.takes_lora:
        return None

    def end(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == AT:
            pipe.unet.disable_adapters()
        if index == AT + 2:
            pipe.unet.enable_adapters()
        return tensors

    with _adapters(bench.pipe):
        return [bench.call(callback_on_step_end=end)]


def weights_written_to(bench: Bench) -> list[Tensor]:
    """A callback writes to a weight of the UNet."""
    weight = bench.pipe.unet.conv_in.weight

    def change(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            weight.mul_(0.5)

    try:
        return [bench.call(change)]
    finally:
        with torch.no_grad():
            weight.mul_(2)


def unet_called(bench: Bench) -> list[Tensor]:
    """A callback calls the UNet by itself, for another prompt: its result, and the run's."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = bench.pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)) if not seen else None,
        with_kwargs=True,
    )
    bench.call(num_inference_steps=1)
    hook.remove()
    args, kwargs = seen[0]
    kwargs = {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"].flip(-1)}
    found: list[Tensor] = []

    def look(pipe: Any, index: int, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            out = pipe.unet(*args, **kwargs)
        found.append((out[0] if isinstance(out, tuple) else out.sample).clone())

    return [bench.call(look), *found]


def pipeline_called(bench: Bench) -> list[Tensor]:
    """A callback calls another pipeline that shares the models: its result, and the run's."""
    other = Bench.__new__(Bench)
    other.name, other.steps = bench.name, 3
    other.pipe = type(bench.pipe)(**bench.pipe.components)
    other.pipe.scheduler = type(bench.pipe.scheduler).from_config(bench.pipe.scheduler.config)
    other.pipe.set_progress_bar_config(disable=True)
    found: list[Tensor] = []
    run = bench.call(lambda pipe, index, tensors: found.append(other.call(seed=3)))
    return [run, *found]


def bar_around_calls(bench: Bench) -> list[Tensor]:
    """The user's own progress bar of the pipeline around two calls."""
    with bench.pipe.progress_bar(total=2) as bar:
        first = bench.call()
        bar.update()
        return [first, bench.call()]


def bar_put_on_later(bench: Bench) -> list[Tensor]:
    """Another progress bar put on the pipeline after `enable_cache`."""
    before = vars(bench.pipe).get("progress_bar")
    stock = type(bench.pipe).progress_bar
    bench.pipe.progress_bar = lambda *args, **kwargs: stock(bench.pipe, *args, **kwargs)
    try:
        return [bench.call()]
    finally:
        del vars(bench.pipe)["progress_bar"]
        if before is not None:
            vars(bench.pipe)["progress_bar"] = before


def free_noise(bench: Bench) -> list[Tensor] | None:
    """FreeNoise, windows of 4 frames for 6."""
    if not hasattr(bench.pipe, "enable_free_noise"):
        return None
    more: dict[str, Any] = {"num_frames": 6}
    if bench.name == "controlnet":
        more["conditioning_frames"] = tiny.images(6)
    bench.pipe.enable_free_noise(context_length=4, context_stride=2)
    try:
        return [bench.call(**more)]
    finally:
        bench.pipe.disable_free_noise()


CASES = (
    unchanged, lora_active, prompt_replaced, prompt_written_to, negative_prompt_replaced,
    pooled_text_replaced, control_replaced, lora_switched, lora_scaled, lora_loaded, lora_unloaded,
    lora_disabled_for_a_step, weights_written_to, unet_called, pipeline_called, bar_around_calls,
    bar_put_on_later, free_noise,
)  # fmt: skip


# What a case's effect is compared with, where that is not the run in which nothing happens.
BESIDE = dict.fromkeys(
    (lora_switched, lora_scaled, lora_unloaded, lora_disabled_for_a_step), lora_active
)


def rows(name: str, policies: list[str], cases: list[str], steps: int) -> Iterator[dict[str, Any]]:
    """The table's rows of one pipeline."""
    bench = Bench(name, steps)
    chosen = [case for case in CASES if case.__name__ in cases or case is unchanged]
    needed = {BESIDE.get(case, unchanged) for case in chosen}
    stock = {case: case(bench) for case in CASES if case in chosen or case in needed}
    for policy in policies:
        with hgc_video.enable_cache(bench.pipe, policy) as cache:
            alone = None
            for case in chosen:
                expected = stock[case]
                if expected is None:
                    continue
                row: dict[str, Any] = {"pipeline": name, "case": case.__name__, "policy": policy}
                try:
                    given = case(bench)
                except (HGCVideoError, RuntimeError, KeyError, IndexError) as error:
                    yield row | {"error": f"{type(error).__name__}: {error}"}
                    continue
                assert given is not None
                saved = cache.report.macs_saved
                distances = [relative(a, b) for a, b in zip(given, expected, strict=True)]
                alone = distances[0] if alone is None else alone
                beside = stock[BESIDE.get(case, unchanged)]
                assert beside is not None
                first, base = expected[0], beside[0]
                effect = relative(first, base) if first.shape == base.shape else None
                yield row | {
                    "effect": effect, "distance": distances[0], "others": distances[1:],
                    "distance_without": alone, "macs_saved": saved,
                }  # fmt: skip
        assert not [n for n in vars(bench.pipe.scheduler) if n in ("step", "scale_model_input")]


def markdown(table: list[dict[str, Any]], policies: list[str]) -> str:
    """The table: a row for each pipeline and case, the distances of each policy."""
    lines = [
        f"| pipeline | case | effect | {' | '.join(policies)} |",
        "|---" * (3 + len(policies)) + "|",
    ]
    keys = dict.fromkeys((row["pipeline"], row["case"]) for row in table)
    for pipeline, case in keys:
        of_case = {r["policy"]: r for r in table if (r["pipeline"], r["case"]) == (pipeline, case)}
        effects = [r.get("effect") for r in of_case.values() if r.get("effect") is not None]
        told = [_told(of_case.get(policy)) for policy in policies]
        effect = f"{effects[0]:.2g}" if effects else ""
        lines.append(f"| {pipeline} | {case.replace('_', ' ')} | {effect} | {' | '.join(told)} |")
    return "\n".join(lines)


def _told(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "error" in row:
        return str(row["error"])[:60]
    return " ".join(f"{d:.2g}" for d in (row["distance"], *row["others"]))


def main() -> None:
    """Runs the cases that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pipeline", nargs="*", default=PIPELINES, choices=PIPELINES)
    parser.add_argument("--policy", nargs="*", default=POLICIES)
    parser.add_argument("--case", nargs="*", default=[case.__name__ for case in CASES])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    for name in asked.pipeline:
        for row in rows(name, list(asked.policy), list(asked.case), asked.steps):
            table.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    print(markdown(table, list(asked.policy)))
    if asked.out is not None:
        write_results(
            asked.out, results_header(None), steps=asked.steps, changed_after_step=AT, rows=table
        )


if __name__ == "__main__":
    main()

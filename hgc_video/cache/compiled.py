"""Models that were compiled: every kind of step of a plan is a graph of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# What a run of every preset needs is far below it; torch's own limit (8) is one for a model whose shapes
# change without end, and beyond it `fullgraph=True` is an error.
_GRAPHS = 128


def is_compiled(model: Any) -> bool:
    """Whether a model, or a part of it, is called through compiled code."""
    whole = hasattr(model, "_orig_mod")
    return whole or any(m.__dict__.get("_compiled_call_impl") for m in model.modules())


def enough_graphs(compiled: bool) -> AbstractContextManager[Any]:
    """Lets torch.compile make as many graphs as a plan may have kinds of steps, for one call."""
    if not compiled:
        return nullcontext()
    config = torch._dynamo.config
    limit = max(_GRAPHS, config.recompile_limit)
    return config.patch(recompile_limit=limit)  # type: ignore[no-any-return]

"""The configurations of models that are loaded, where those say all that their costs depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import ModelError
from .configurations import Configurations, model_class
from .dry_run import Build
from .graph_store import plain_configuration
from .layout import controlnets


def configurations_of(unet: Any, controlnet: Any, vae: Any = None) -> Configurations | None:
    """The models' configurations, from which copies of the same cost can be made; None where one of them is
    more than its configuration: with FreeNoise, an IP-Adapter, or code of its own."""
    models = [unet, *controlnets(controlnet).values(), *([] if vae is None else [vae])]
    told = [_configuration(model) for model in models]
    known = [one for one in told if one is not None]
    if len(known) < len(told):
        return None
    last = len(known) if vae is None else -1
    return Configurations(known[0], tuple(known[1:last]), {} if vae is None else known[-1])


def _configuration(model: Any) -> Mapping[str, Any] | None:
    """A model's configuration with its class; None where it is another class of that name, or the
    configuration is no plain data (quantised models note objects there)."""
    build = Build.of(model)
    name = build.kind.__name__
    config = getattr(model, "_orig_mod", model).config
    told = plain_configuration({**config, "_class_name": name})
    with suppress(ModelError, TypeError):
        json.dumps(told)
        return told if model_class(name) is build.kind and not build.parts else None
    return None

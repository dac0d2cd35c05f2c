"""What the tests of the cache share."""

from __future__ import annotations

import pytest

from tests.cache.engine_parts import models
from tests.tiny_models import Clip


@pytest.fixture
def clip():
    """Two steps on models that all tests share, which leave them as they were."""
    before = [set(vars(m)) for model in models() for m in model.modules()]
    made = Clip(*models())
    made.timesteps = made.timesteps[:2]
    yield made
    assert before == [set(vars(m)) for model in models() for m in model.modules()]

"""Policies by name, and the text that calls them: `deepcache:interval=3,branch=0+lossless`."""

from __future__ import annotations

from ...errors import PresetError, nearest
from .base import Policy
from .block_caching import BlockCaching
from .calibrated_spectrum import CalibratedSpectrum
from .clockwork import Clockwork
from .deepcache import DeepCache
from .easycache import EasyCache
from .faster_diffusion import FasterDiffusion
from .fastercache import FasterCache
from .fewer_steps import FewerSteps
from .fitted import Fitted
from .full import Full, Off
from .guard import Guard
from .guidance_gate import GuidanceGate
from .hgc import HGC
from .hgc_online import HGCOnline
from .hicache import HiCache
from .l2p import L2P
from .lossless import Lossless
from .net import Net
from .pab import PAB
from .resilphase import ResilPhase
from .sada import SADA
from .searched import Searched
from .spectrum import Spectrum
from .taylorseer import TaylorSeer
from .tgate import TGate
from .ucache import UCache

POLICIES: dict[str, type[Policy]] = {
    policy.spelling: policy
    for policy in (
        HGC, Searched, Guard, HGCOnline, DeepCache, BlockCaching, TGate, FasterDiffusion, Clockwork, PAB,
        EasyCache, UCache, SADA, FasterCache, Spectrum, CalibratedSpectrum, TaylorSeer, HiCache, ResilPhase,
        L2P, Fitted, GuidanceGate, Net, Lossless, FewerSteps, Full, Off,
    )
}  # fmt: skip


def make_policy(text: str) -> Policy:
    """The policy that `name:field=value,...` names; PresetError says what is allowed."""
    name, _, options = text.strip().partition(":")
    if name not in POLICIES:
        raise PresetError(f'unknown policy "{name}": {nearest(name, POLICIES)}')
    return POLICIES[name](**split_fields(name, options))


def split_fields(name: str, options: str) -> dict[str, str]:
    """`field=value,...` as a dict; what the values mean is for whoever is called `name` to say."""
    values: dict[str, str] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = (part.strip() for part in option.partition("="))
        if name in POLICIES and not POLICIES[name].model_fields:
            raise PresetError(f'"{name}" takes no fields, got "{options}"')
        if not equals:
            raise PresetError(f"{name}: write {key}=VALUE")
        values[key] = value
    return values

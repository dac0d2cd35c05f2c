"""How a clip moves that begins with an image."""

from __future__ import annotations

from pydantic import Field

from .base import Options
from .values import Number, Whole


class ImageMotion(Options):
    """How a clip moves that begins with an image, as Stable Video Diffusion is conditioned."""

    fps: Whole = Field(7, ge=1, le=60, description="frames per second, as the model is conditioned")
    motion_bucket_id: Whole = Field(127, ge=0, le=255, description="more is livelier")
    noise_aug_strength: Number = Field(
        0.02, ge=0, description="noise on the image; more leaves it sooner"
    )
    min_guidance_scale: Number = Field(
        1.0, ge=0, description="guidance at the first frame, growing to guidance_scale at the last"
    )

    @classmethod
    def _owner(cls) -> str:
        return "motion"

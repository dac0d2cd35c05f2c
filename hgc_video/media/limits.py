"""How much a clip may claim to hold. A small file can claim a picture, or a length, that fits no memory.

Both limits are raised by environment variables: HGC_VIDEO_MAX_PIXELS (of a frame) and HGC_VIDEO_MAX_FRAMES.
"""

from __future__ import annotations

from hgc_video.errors import VideoError
from hgc_video.files import limit_of

MAX_PIXELS = 2**26  # of one frame: 8192 x 8192; 8K video has half as many
MAX_FRAMES = 2_000_000  # nine hours at 60 fps
_PIXELS, _FRAMES = "HGC_VIDEO_MAX_PIXELS", "HGC_VIDEO_MAX_FRAMES"


def check_pixels(width: int, height: int, what: str) -> None:
    """VideoError where frames of this size are larger than allowed; `what` is of this size."""
    most = limit_of(_PIXELS, MAX_PIXELS)
    if width * height > most:
        raise VideoError(
            f"{what} is {width}x{height}, more than {most} pixels a frame; make it smaller, or allow more "
            f"with the environment variable {_PIXELS}"
        )


def check_num_frames(count: float, what: str) -> None:
    """VideoError where a clip claims more frames than allowed; `what` is as long."""
    most = limit_of(_FRAMES, MAX_FRAMES)
    if count > most:
        raise VideoError(
            f"{what} claims {count:.0f} frames, more than {most}; cut it, or allow more with the environment "
            f"variable {_FRAMES}"
        )

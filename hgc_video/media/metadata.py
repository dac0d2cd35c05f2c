"""Text that travels inside a clip: embedded when it is written, read back from the finished file.

In .mp4 and .webm it is the tag "comment", in .gif the comment, in .webp the EXIF image description, in a
folder of PNGs a text chunk of the first one. Knows nothing about what the text says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image

from hgc_video.errors import VideoError
from hgc_video.files import ffmpeg_name, refuse_stream, user_path
from hgc_video.media.sources import opened_image

MOVIE_TAG, PNG_TAG = "comment", "hgc_video"
_IMAGE_DESCRIPTION = 0x010E  # of EXIF


def gif_comment(text: str | None) -> dict[str, Any]:
    """What Pillow is given to save a GIF with this text; nothing of None."""
    return {} if text is None else {"comment": text.encode()}


def webp_exif(text: str | None) -> dict[str, Any]:
    """What Pillow is given to save a WebP with this text; nothing of None."""
    if text is None:
        return {}
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = text.encode()
    return {"exif": exif}


def read_text(path: str | os.PathLike[str]) -> str | None:
    """The text that a clip carries, of a file or a folder of PNGs; None where it carries none.

    Raises:
        VideoError: there is no such file, or it cannot be read as a clip.
    """
    file = user_path(path)
    if not file.exists():
        raise VideoError(f'no file "{file}"; check the path')
    refuse_stream(file, VideoError)
    if file.is_dir():
        first = min(file.glob("*.png"), default=None)
        return None if first is None else _of_image(first)
    if file.suffix.lower() in (".gif", ".webp", ".png"):
        return _of_image(file)
    return _of_movie(file)


def _of_image(path: Path) -> str | None:
    with opened_image(path) as image:
        text = image.info.get(PNG_TAG) or image.info.get("comment")
        if text is None and _IMAGE_DESCRIPTION in (exif := image.getexif()):
            text = str(exif[_IMAGE_DESCRIPTION]).encode("latin-1", "replace")  # as Pillow reads it
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _of_movie(path: Path) -> str | None:
    import av

    try:
        with av.open(ffmpeg_name(path)) as container:
            tags = {name.lower(): text for name, text in container.metadata.items()}
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f'"{path}" is not a video, so it carries no configuration') from error
    return tags.get(MOVIE_TAG)

"""How movies are encoded: codec, quality and pixel format, checked against the container and this build.

Knows nothing about frames or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgc_video.errors import InputError, nearest

if TYPE_CHECKING:
    import av

MOVIES = (".mp4", ".webm")
_CODECS = {".mp4": ("h264", "hevc", "av1"), ".webm": ("vp9", "av1")}
_CRF = {"h264": (17, 51), "hevc": (20, 51), "av1": (25, 63), "vp9": (24, 63)}  # default, worst
_DEFAULT_PIX_FMT = "yuv420p"
# What an encoder is given beside its crf; one that is not here gets its own defaults.
_SETTINGS = {
    # x264's macroblock tree reads memory that was never written, at sizes up to 128 pixels at least, so that
    # the same frames give other bytes in another process.
    "libx264": {"preset": "medium", "x264-params": "mbtree=0"},
    "libx265": {"preset": "medium", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "6"},
    "libvpx-vp9": {"b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "1"},
}


@dataclass(frozen=True)
class Encoding:
    """How a movie is encoded; None is the container's own: its first codec, that codec's quality, yuv420p.

    `codec`: h264, hevc or av1 in .mp4, vp9 or av1 in .webm. `crf`: 0 is best; up to 51 (h264, hevc) or 63.
    """

    codec: str | None = None
    crf: int | None = None
    pix_fmt: str | None = None

    def check(self, target: Path) -> None:
        """InputError where a file of this suffix cannot be encoded so, or not with this build of PyAV."""
        suffix = target.suffix.lower()
        if suffix in _CODECS:
            self._check_movie(suffix)
            return
        told = {"codec": self.codec, "crf": self.crf, "pix_fmt": self.pix_fmt}
        for name, value in told.items():
            if value is not None:
                what = f"{suffix} files" if suffix else "folders of PNGs"
                raise InputError(
                    f"{name}={value} is for movies ({', '.join(MOVIES)}), not for {what}; leave it out"
                )

    def name(self, suffix: str) -> str:
        """The codec of files of this suffix."""
        return self.codec or _CODECS[suffix][0]

    def add_stream(self, container: Any, suffix: str, rate: Any, *, single: bool = False) -> Any:
        """A stream of the container, which encodes so; BT.709 and tagged so. Give it its size. `single`: it
        gets one frame."""
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        codec = self.name(suffix)
        encoder = _encoder(codec)
        stream = container.add_stream(encoder.name, rate=rate)
        stream.pix_fmt = self.pix_fmt or _DEFAULT_PIX_FMT
        crf = _CRF[codec][0] if self.crf is None else self.crf
        stream.options = {"crf": str(crf), **_SETTINGS.get(encoder.name, {})}
        context = stream.codec_context
        if single and encoder.name == "libx265":  # with B frames it may tell no time for one frame
            stream.options = {**stream.options, "x265-params": "log-level=none:bframes=0"}
        if codec == "hevc":
            context.codec_tag = "hvc1"  # the only tag that Apple's players take
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _check_movie(self, suffix: str) -> None:
        codec = self.name(suffix)
        if codec not in _CODECS[suffix]:
            raise InputError(f'no codec "{codec}" in {suffix}: {nearest(codec, _CODECS[suffix])}')
        worst = _CRF[codec][1]
        if self.crf is not None and not 0 <= self.crf <= worst:
            raise InputError(f"crf={self.crf} is not possible for {codec}; give 0 to {worst}")
        encoder = _encoder(codec)
        formats = [f.name for f in encoder.video_formats or () if f.name.startswith("yuv4")]
        if self.pix_fmt is not None and self.pix_fmt not in formats:
            raise InputError(
                f'{codec} takes no pixel format "{self.pix_fmt}": {nearest(self.pix_fmt, formats)}'
            )


PLAIN = Encoding()


def _encoder(codec: str) -> av.Codec:
    import av
    import av.codec.codec

    try:
        return av.Codec(codec, "w")  # the build's encoder: libx264 in the wheels, others elsewhere
    except av.codec.codec.UnknownCodecError as error:
        raise InputError(
            f"this build of PyAV has no {codec} encoder; give another codec, or install PyAV's own wheel"
        ) from error


def halves_colour(pix_fmt: str | None) -> bool:
    """Whether colour is stored at half the resolution, so that sizes must be even."""
    return not (pix_fmt or _DEFAULT_PIX_FMT).startswith("yuv444")

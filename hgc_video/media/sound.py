"""The sound of a clip: taken from a file, cut to the frames that are there, copied without encoding where the
container allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgc_video.errors import InputError, VideoError, text_of, warn
from hgc_video.files import ffmpeg_name, refuse_stream, user_path
from hgc_video.media.encoding import MOVIES

# What players of these containers know; other sound is encoded anew.
_COPIED = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    ".webm": ("opus", "vorbis"),
}
_ENCODED = {
    ".mp4": ("aac", None),
    ".webm": ("libopus", 48000),
}  # with its rate; None: the sound's own
_BIT_RATE = 160_000


@dataclass(frozen=True)
class Span:
    """A piece of a file's sound, in seconds of the file's own time."""

    start_s: float
    stop_s: float

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.stop_s - self.start_s


@dataclass(frozen=True)
class Sound:
    """The sound of a file, in pieces that follow each other."""

    path: Path
    spans: tuple[Span, ...]


def can_hold_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a clip of this name can have sound."""
    return Path(path).suffix.lower() in MOVIES


def has_sound(path: Path) -> bool:
    """Whether a file has a sound track that can be decoded; False of one that ffmpeg cannot open."""
    import av

    try:
        with av.open(ffmpeg_name(path)) as container:
            heard = container.streams.best("audio")
            return heard is not None and heard.codec_context is not None
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def sound_of_file(path: str | os.PathLike[str], duration_s: float) -> Sound:
    """The sound of a file from its beginning; InputError where there is none."""
    file = user_path(path)
    refuse_stream(file, VideoError)
    if not file.is_file():
        raise VideoError(f'no file "{file}" to take the sound from; check the path')
    if not has_sound(file):
        raise InputError(f'"{file}" has no sound; name a file with sound, or leave audio out')
    return Sound(file, (Span(0.0, duration_s),))


def sound_of_frames(
    path: Path, taken: Sequence[int], *, source_fps: float, fps: float, begins_s: float
) -> Sound:
    """The sound to frames `taken` of a movie, which are shown at `fps`; its frames are numbered at
    `source_fps` from `begins_s` on. Where the frames go back, as in a loop, so does the sound."""
    starts = [0, *(i for i in range(1, len(taken)) if taken[i] < taken[i - 1])]
    spans = []
    for start, stop in zip(starts, [*starts[1:], len(taken)], strict=True):
        at = begins_s + taken[start] / source_fps
        spans.append(Span(at, at + (stop - start) / fps))
    return Sound(path, tuple(spans))


class SoundTrack:
    """A sound track that is written beside pictures, as they come."""

    def __init__(self, container: Any, packets: Iterator[tuple[float, Any]]) -> None:
        self._container, self._packets = container, packets
        self._next = next(packets, None)

    def write_up_to(self, seconds: float) -> None:
        """Writes what is heard before this time."""
        while self._next is not None and self._next[0] < seconds:
            self._container.mux(self._next[1])
            self._next = next(self._packets, None)


@contextmanager
def sound_track(container: Any, suffix: str, sound: Sound) -> Iterator[SoundTrack]:
    """Adds a sound track to a movie that is about to be written; all streams must be there before the
    first packet."""
    import av

    with av.open(ffmpeg_name(sound.path)) as source:
        heard: Any = source.streams.best("audio")
        if heard.codec_context.codec.canonical_name in _COPIED[suffix]:
            stream = container.add_stream_from_template(heard)
            packets = _copied(source, heard, stream, sound.spans, may_begin_before=suffix == ".mp4")
        else:
            codec, rate = _ENCODED[suffix]
            stream = container.add_stream(
                codec, rate=rate or heard.rate, layout="mono" if heard.channels == 1 else "stereo"
            )
            stream.bit_rate = _BIT_RATE
            packets = _encoded(source, heard, stream, sound.spans)
        yield SoundTrack(container, _until_damaged(packets, sound.path))


def _until_damaged(packets: Iterator[tuple[float, Any]], path: Path) -> Iterator[tuple[float, Any]]:
    """The packets up to where the sound cannot be read any more, which is told."""
    import av

    try:
        yield from packets
    except (av.error.FFmpegError, OSError, ValueError) as error:
        told = text_of(error)
        warn(
            f'the sound of "{path}" is damaged and ends early ({told})',
            stacklevel=2,
        )


def _copied(
    source: Any, heard: Any, stream: Any, spans: Sequence[Span], *, may_begin_before: bool
) -> Iterator[tuple[float, Any]]:
    """Packets as they are, with the time each is heard at. The first one of mp4 may begin before the picture
    does: players leave that part out."""
    unit, done_s, last = float(heard.time_base), 0.0, None
    for span in spans:
        source.seek(int(max(0.0, span.start_s) * 1_000_000))
        move = round((done_s - span.start_s) / unit)
        for packet in source.demux(heard):
            if packet.pts is None or not packet.size:
                continue
            begins = packet.pts * unit
            if begins >= span.stop_s:
                break
            early = begins < span.start_s
            if early and (not may_begin_before or begins + packet.duration * unit <= span.start_s):
                continue
            packet.pts, packet.dts = packet.pts + move, packet.pts + move
            if last is not None and packet.dts <= last:  # the seam of two pieces
                continue
            last, packet.stream = packet.dts, stream
            yield begins - span.start_s + done_s, packet
        done_s += span.duration_s


def _encoded(
    source: Any, heard: Any, stream: Any, spans: Sequence[Span]
) -> Iterator[tuple[float, Any]]:
    """Packets of sound that is decoded, cut and encoded anew, with the time each is heard at."""
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

    rate, layout, done_s = stream.codec_context.sample_rate, stream.codec_context.layout, 0.0
    for span in spans:
        resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
        source.seek(int(max(0.0, span.start_s) * 1_000_000))
        for decoded in source.decode(heard):
            if decoded.time is not None and decoded.time >= span.stop_s:
                break
            for frame in resampler.resample(decoded):
                at = frame.time or 0.0
                first = max(0, round((span.start_s - at) * rate))
                last = min(frame.samples, round((span.stop_s - at) * rate))
                if first >= last:
                    continue
                cut = AudioFrame.from_ndarray(
                    frame.to_ndarray()[:, first:last], format="fltp", layout=layout
                )
                cut.sample_rate = rate
                heard_at = at + first / rate - span.start_s + done_s
                cut.pts = round(heard_at * rate)
                yield from ((heard_at, packet) for packet in stream.encode(cut))
        done_s += span.duration_s
    yield from ((done_s, packet) for packet in stream.encode(None))

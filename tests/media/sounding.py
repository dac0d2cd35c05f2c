"""Sound that tells its time, in the formats people have: a tone that rises by 100 Hz each half second."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

STEP_S, LOWEST, RISE = (
    0.5,
    300,
    100,
)  # seconds of a tone, Hz of the first one, Hz from one to the next


def tones(seconds: float, rate: int) -> np.ndarray:
    """Samples (n) in -1..1."""
    times = np.arange(round(seconds * rate)) / rate
    pitch = LOWEST + RISE * np.floor(times / STEP_S)
    return (0.5 * np.sin(2 * np.pi * np.cumsum(pitch) / rate)).astype(np.float32)


def put_under(silent: Path, path: Path, codec: str = "aac", rate: int = 44100) -> Path:
    """The movie with tones as long as it."""
    with av.open(str(silent)) as read, av.open(str(path), "w") as made:
        video = made.add_stream_from_template(read.streams.video[0])
        sound = made.add_stream(codec, rate=rate, layout="mono")
        packets = [packet for packet in read.demux(video=0) if packet.size]
        seconds = float(max(p.pts + (p.duration or 0) for p in packets) * packets[0].time_base)
        for packet in packets:
            packet.stream = video
            made.mux(packet)
        _encode(made, sound, seconds, rate)
    return path


def write(path: Path, seconds: float, codec: str, rate: int = 44100) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as made:
        _encode(made, made.add_stream(codec, rate=rate, layout="mono"), seconds, rate)
    return path


def _encode(made, sound, seconds, rate):
    wave = av.AudioFrame.from_ndarray(tones(seconds, rate)[None], format="fltp", layout="mono")
    wave.sample_rate = rate
    made.mux(sound.encode(wave))
    made.mux(sound.encode())


def heard(path: Path) -> tuple[np.ndarray, int]:
    """Samples (n) of a file's sound from its time 0 on, as a player gives them, and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate, parts, at = stream.rate, [], None
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        for decoded in container.decode(stream):
            for frame in resampler.resample(decoded):
                at = frame.time if at is None else at
                parts.append(frame.to_ndarray()[0])
    samples = np.concatenate(parts)
    first = round(at * rate)
    return (samples[-first:] if first < 0 else np.pad(samples, (first, 0))), rate


def tone_at(path: Path, seconds: float) -> int:
    """Which tone is heard at a time: 0 in the first half second of the sound, 1 in the next ..."""
    samples, rate = heard(path)
    middle = round(seconds * rate)
    piece = samples[max(0, middle - rate // 20) : middle + rate // 20]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 8 * len(piece)))
    pitch = np.argmax(spectrum) * rate / (8 * len(piece))
    return round((pitch - LOWEST) / RISE)


def seconds_of(path: Path) -> float:
    """How long a file's sound is."""
    samples, rate = heard(path)
    return len(samples) / rate

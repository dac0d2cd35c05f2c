"""People in a clip as tracks: told apart from frame to frame by position, gaps bridged, smoothed in time.

Points are (... 4): x, y, z in pixels and visibility 0..1; a person is one array (n 4) of them, a track
(f n 4), all 0 where the person is not seen. Knows nothing about detectors or drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..media.skeleton import BODY, GROUPS

Points = NDArray[np.floating]

SAME = 0.12  # of a person's size: two findings so near to each other are of one person
_REACH = 0.5  # of a person's size from frame to frame; more each frame that the person is not seen
_LEAST_WINDOW = 5  # frames, for a parabola to smooth anything


def apart(people: Sequence[Points]) -> list[Points]:
    """The people of a frame, those left out that are another one found again."""
    kept: list[Points] = []
    for person in people:
        if all(_distance(person, other) > SAME for other in kept):
            kept.append(person)
    return kept


def tracks(found: Sequence[Points], max_gap: int) -> Points:
    """The people (p n 4) found in each frame as tracks (t f n 4), the one seen most and largest first.

    A track goes on with whoever is nearest, in all frames of at most `max_gap` in which it was not seen.
    """
    made: list[dict[int, Points]] = []
    for frame, people in enumerate(found):
        open_ = [track for track in made if frame - max(track) <= max_gap + 1]
        taken = _matched(open_, list(people), frame)
        for number, person in enumerate(people):
            if number in taken:
                taken[number][frame] = person
            else:
                made.append({frame: person})
    made.sort(key=lambda track: -sum(_size(person) for person in track.values()))
    num_points = next((p.shape[1] for p in found if len(p)), BODY.stop)
    placed = np.zeros((len(made), len(found), num_points, 4))
    for track, rows in zip(made, placed, strict=True):
        rows[list(track)] = list(track.values())
    return placed


def bridged(track: Points, max_gap: int) -> tuple[Points, NDArray[np.bool_]]:
    """A track (f n 4) whose gaps of up to `max_gap` frames are bridged, and the frames (f) of its gaps.

    A hand or a face that is not found for so long is bridged like a person.
    """
    track, gaps = track.copy(), np.zeros(len(track), bool)
    for group in GROUPS:
        points = track[:, group]
        if not points.size:
            continue
        seen = np.flatnonzero(points[..., 3].max(1) > 0)
        for before, after in pairwise(seen.tolist()):
            gap = after - before - 1
            if 0 < gap <= max_gap:
                share = (np.arange(1, gap + 1) / (gap + 1))[:, None, None]
                points[before + 1 : after] = (1 - share) * points[before] + share * points[after]
                gaps[before + 1 : after] |= group == BODY
    return track, gaps


def smoothed(track: Points, window: int) -> Points:
    """A track (f n 4) smoothed in time over `window` frames by a local parabola (Savitzky-Golay), which keeps
    speed and turns; each stretch in which somebody is seen by itself."""
    from scipy.signal import savgol_filter

    track = track.copy()
    for group in GROUPS:
        points = track[:, group]
        if not points.size:
            continue
        for start, end in _runs(points[..., 3].max(1) > 0):
            length = min(window, end - start)
            length -= 1 - length % 2
            if length >= _LEAST_WINDOW:
                points[start:end, :, :3] = savgol_filter(
                    points[start:end, :, :3], length, 2, axis=0
                )
    return track


def _matched(
    open_: Sequence[dict[int, Points]], people: Sequence[Points], frame: int
) -> dict[int, dict[int, Points]]:
    """The open track of each person, by number; a person without one is new."""
    from scipy.optimize import linear_sum_assignment

    if not open_ or not people:
        return {}
    cost = np.empty((len(open_), len(people)))
    for row, track in zip(cost, open_, strict=True):
        last = max(track)
        reach = _REACH * min(3, frame - last)
        for column, person in enumerate(people):
            distance = _distance(track[last], person)
            row[column] = distance if distance <= reach else 1e6
    rows, columns = linear_sum_assignment(cost)
    return {int(c): open_[r] for r, c in zip(rows, columns, strict=True) if cost[r, c] < 1e6}


def _distance(one: Points, other: Points) -> float:
    """How far apart the bodies of two people are, in sizes of the larger one."""
    between = np.linalg.norm(one[BODY, :2] - other[BODY, :2], axis=-1).mean()
    return float(between / max(_size(one), _size(other), 1.0))


def _size(person: Points) -> float:
    """The diagonal of a body's box, in pixels."""
    return float(np.linalg.norm(np.ptp(person[BODY, :2], axis=0)))


def _runs(seen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Beginning and end of every stretch in which `seen` holds."""
    edges = np.flatnonzero(np.diff(np.r_[0, seen.astype(int), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

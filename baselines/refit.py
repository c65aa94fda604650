"""The last fit of the Wiener and Kalman decoders: once validation has chosen, to training and validation together.

Of 15 s of calibration they so learn from 13 where the networks, which stop by validation, learn from 10. That is to
their advantage, and meant to be: a baseline is to be as strong as it honestly can be.
"""

from __future__ import annotations

from dataclasses import replace

from realmbench.session import Segment, SessionData


def all_segments(session: SessionData, reach: int = 0) -> list[Segment]:
    """Return the training and the validation segments, of whose warm-up ``reach`` frames are left for the lags."""
    return [*session.train, *(part(segment, max(0, segment.warm_up - reach)) for segment in session.validation)]


def part(segment: Segment, first: int, stop: int | None = None) -> Segment:
    """Return the frames ``first`` to ``stop`` of a segment."""
    frames = slice(first, stop)
    return replace(
        segment,
        x=segment.x[frames],
        y=segment.y[frames],
        warm_up=max(0, segment.warm_up - first),
        start=segment.start + first,
        privileged=segment.privileged[frames],
    )

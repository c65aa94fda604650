"""The last fit of decoders with a closed form: once validation has chosen, there is no reason to leave it out.

A network cannot do that, since its validation says when to stop; of 15 s of calibration it learns from 10, and these
from 13.
"""

from __future__ import annotations

from dataclasses import replace

from realmbench.session import Segment, SessionData


def all_segments(session: SessionData, reach: int = 0) -> list[Segment]:
    """Return the training and the validation segments, of whose warm-up ``reach`` frames are left for the lags."""
    return [*session.train, *(_cut(segment, max(0, segment.warm_up - reach)) for segment in session.validation)]


def _cut(segment: Segment, first: int) -> Segment:
    return replace(
        segment,
        x=segment.x[first:],
        y=segment.y[first:],
        warm_up=segment.warm_up - first,
        start=segment.start + first,
        privileged=segment.privileged[first:],
    )

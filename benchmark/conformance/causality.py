"""Checks of causality, from the raw sample to the prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realmbench import leaks

from .candidate import Candidate
from .report import NO_STREAM, Failed, NotApplicable


def future_replaced(kind: str) -> Callable[[Candidate], str]:
    """Return the check that replaces the future by one kind of content."""

    def check(c: Candidate) -> str:
        replacement = leaks.futures(c.raw, c.other, np.random.default_rng(3))[kind]
        reach = leaks.future_reach(
            c.pipeline, c.raw, replacement, c.cut_times(), c.sampling_rate, c.front_end.rate, c.horizon_s
        )
        if reach.change > leaks.TOLERANCE:
            raise Failed(f"predictions up to {reach.seconds:.2f} s earlier change by up to {reach.change:.2g}")
        return f"largest change {reach.change:.1g} at {c.times} times"

    return check


def no_gradient_from_the_future(c: Candidate) -> str:
    """The derivative of an output by a later input is exactly zero."""
    x = c.frames(120 + 2 * round(c.horizon_s * c.session.rate))
    reach = leaks.gradient_reach(c.decoder, c.session, x, (10, 60, 100), c.horizon_s)
    if reach is None:
        raise NotApplicable("no torch network")
    if reach > 0:
        raise Failed(f"outputs depend on later inputs (gradient {reach:.2g})")
    return "exactly zero"


def length_changes_nothing(c: Candidate) -> str:
    """Predictions of a shorter record are those of the longer one."""
    look_ahead = int(np.ceil(c.horizon_s * c.front_end.rate - 1e-6))
    lengths = [len(c.raw) // 3, len(c.raw) // 2 + 1, len(c.raw) - 7]
    change = leaks.length_change(c.pipeline, c.raw, lengths, look_ahead)
    if change > leaks.TOLERANCE:
        raise Failed(f"predictions change by {change:.2g} when the record ends earlier")
    return f"largest change {change:.1g}"


def live_equals_whole(c: Candidate) -> str:
    """Raw samples in chunks of any size, as on a device, give what the whole pass gives."""
    if not c.decoder.streams:
        raise NotApplicable(NO_STREAM)
    change = leaks.chunk_change(c.decoder, c.session, c.front_end, c.sampling_rate, c.raw, c.generator)
    if change > leaks.TOLERANCE:
        raise Failed(f"the live prediction differs by {change:.2g}")
    return f"largest change {change:.1g}"


CAUSALITY: dict[str, Callable[[Candidate], str]] = {
    **{f"future replaced by {kind}": future_replaced(kind) for kind in ("noise", "zeros", "another session", "NaN")},
    "gradient from the future": no_gradient_from_the_future,
    "length of the record": length_changes_nothing,
    "live chunks": live_equals_whole,
}

"""R2 by time since a test block began: sums by hand, gaps between test blocks, whole sets and long blocks only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from realmbench.errors import RealmbenchError
from realmbench.figures import write_figures
from realmbench.records import BlockScore, RunRecord
from realmbench.stream_time import stream_curves, stretches_of

SESSIONS = ["p", "q"]


def stretches(begin: float, errors: Sequence[float], total: float = 1.0) -> list[BlockScore]:
    """Make a test block of stretches of ten seconds with two axes; the second has twice the error."""
    return [
        BlockScore(
            start_s=begin + 10 * index,
            stop_s=begin + 10 * (index + 1),
            samples=1000,
            sse=[error, 2 * error],
            sst=[total, total],
            sum=[0.0, 0.0],
            sum_of_squares=[total, total],
        )
        for index, error in enumerate(errors)
    ]


def record(template: RunRecord, model: str, session: str, blocks: list[BlockScore], seed: int = 0) -> RunRecord:
    return template.model_copy(
        update={"model": model, "session": session, "seed": seed, "blocks": blocks, "held_out_sessions": SESSIONS}
    )


def test_sums_over_sessions_by_hand(template: RunRecord) -> None:
    rising = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    records = [
        record(template, "m", "p", stretches(100, rising)),
        # Three times the weight, and a stretch that the other session has not.
        record(template, "m", "q", stretches(0, [0.9] * 7, total=3.0)),
        # A method that lacks a session is not drawn.
        record(template, "partial", "p", stretches(100, rising)),
    ]
    [(_, [line])] = stream_curves(records)
    assert line.label == "m (tiny)"
    assert line.since_s == pytest.approx([5, 15, 25, 35, 45, 55])
    assert line.r2 == pytest.approx([1 - 1.5 * (error + 0.9) / 4 for error in rising])


def test_a_gap_begins_a_test_block(template: RunRecord) -> None:
    blocks = stretches(0, [0.1] * 6) + stretches(75, [0.5] * 6)
    both = [record(template, "m", name, list(reversed(blocks))) for name in SESSIONS]
    assert [len(block) for block in stretches_of(both[0])] == [6, 6]
    [(_, [line])] = stream_curves(both)
    assert line.since_s == pytest.approx([5, 15, 25, 35, 45, 55]), "each counted from its own test block's start"
    assert line.r2 == pytest.approx([1 - 1.5 * 0.3] * 6)


def test_short_test_blocks_make_no_curve_and_long_ones_a_figure(template: RunRecord, tmp_path: Path) -> None:
    short = [record(template, "m", name, stretches(0, [0.1] * 5)) for name in SESSIONS]
    assert stream_curves(short) == []
    with pytest.raises(RealmbenchError, match="nor test blocks of 60 s"):
        write_figures(short, tmp_path)
    long = [record(template, "m", name, stretches(0, [0.1] * 12), seed) for name in SESSIONS for seed in (0, 1)]
    [path] = write_figures(long, tmp_path)
    assert path.name.startswith("stream-toy")
    assert path.stat().st_size > 1000

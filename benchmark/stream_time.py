"""R2 against the time since a test block began: whether a decoder holds on a long stream. From run records; no torch.

Decoders meet every test block with a fresh state, while they were trained on windows of seconds. One whose state goes
where training never was falls behind the others as a block goes on; a score over the whole block hides when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .records import BlockScore, RunRecord
from .statistics import Comparison, comparable, label, methods, runs_by_session

# Test blocks with fewer stretches of ten seconds say nothing of long streams.
FEWEST_STRETCHES = 6


@dataclass(frozen=True)
class StreamCurve:
    """One method's R2 by stretch of the test blocks.

    Attributes
    ----------
    since_s : mean time from a test block's start to the stretch's middle, over sessions.
    r2 : one minus the sum of squared errors over that of the truth, both over all sessions, seeds and test blocks;
        mean over axes.
    """

    label: str
    causal: bool
    since_s: tuple[float, ...]
    r2: tuple[float, ...]


def stream_curves(records: Iterable[RunRecord]) -> list[tuple[Comparison, list[StreamCurve]]]:
    """Collect the curves of every table whose test blocks all last a minute or more, complete methods only.

    Stretches that only the longest blocks have are left out, so that every point is of all sessions.
    """
    found = []
    for comparison, group in comparable(records):
        runs = {
            number: [run for of_session in by_session.values() for run in of_session.values()]
            for number, method in enumerate(methods(group).values())
            if set(by_session := runs_by_session(method)) == set(comparison.sessions)
        }
        shortest = min((len(block) for each in runs.values() for run in each for block in stretches_of(run)), default=0)
        if shortest >= FEWEST_STRETCHES:
            lines = [_curve(each, shortest) for each in runs.values()]
            found.append((comparison, sorted(lines, key=lambda line: -np.mean(line.r2))))
    return found


def stretches_of(record: RunRecord) -> list[list[BlockScore]]:
    """Return the stretches of every test block, in order of time: one begins where the last one ended."""
    found: list[list[BlockScore]] = []
    for stretch in sorted(record.blocks, key=lambda stretch: stretch.start_s):
        if found and abs(stretch.start_s - found[-1][-1].stop_s) < 1e-6:
            found[-1].append(stretch)
        else:
            found.append([stretch])
    return found


def _curve(runs: Sequence[RunRecord], count: int) -> StreamCurve:
    blocks = [block for run in runs for block in stretches_of(run)]
    since, r2 = [], []
    for index in range(count):
        at = [(block[index], block[0].start_s) for block in blocks]
        since.append(float(np.mean([(stretch.start_s + stretch.stop_s) / 2 - start for stretch, start in at])))
        error = np.sum([stretch.sse for stretch, _ in at], axis=0)
        total = np.sum([stretch.sst for stretch, _ in at], axis=0)
        r2.append(float(np.mean(1 - error / total)))
    return StreamCurve(label(runs[0]), runs[0].causal, tuple(since), tuple(r2))

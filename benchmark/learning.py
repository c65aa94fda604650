"""How pretraining went and what came of it: how long it went on, learning curves, R2 against what a stage reached.

No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .pretrainings import ArtifactRecord
from .records import HEADLINE, RunRecord
from .statistics import Comparison, comparable, label, methods


@dataclass(frozen=True)
class Learning:
    """One stage of pretraining as one method, or several that share it, went through it.

    Attributes
    ----------
    stage : kind of the artifact that it left.
    label : the methods.
    causal : whether one of them is.
    curves : of every fold and seed the (update, measure) pairs; what a score is, the stage says.
    """

    stage: str
    label: str
    causal: bool
    curves: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Reached:
    """What a method's pretraining reached, and what came of it.

    Attributes
    ----------
    points : of every fold and seed the fold, the best validation score of the stage, and R2 averaged over the held-out
        sessions, where all of that fold that any method was run on are there. Folds differ in both, whatever a method
        does: compare within one.
    """

    stage: str
    label: str
    causal: bool
    points: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Effort:
    """How long one stage of a method's pretraining went on, over folds and seeds.

    A stage that stops by itself never comes to the end of its schedule, where the rate is low: a budget that is allowed
    is not one that was used.

    Attributes
    ----------
    allowed : updates at most; None where the artifact does not say.
    made : the fewest and the most updates before a training ended.
    best : of the updates whose weights were kept, the first and the last.
    """

    stage: str
    label: str
    allowed: int | None
    made: tuple[int, int]
    best: tuple[int, int]
    trainings: int


def efforts(records: Iterable[RunRecord], kept: Mapping[str, ArtifactRecord]) -> list[tuple[Comparison, list[Effort]]]:
    """Collect how long every stage went on, for every table, by method and in the order of its stages."""
    kept = _trained(kept)
    found = []
    for comparison, group in comparable(records):
        lines = []
        for method in methods(group).values():
            stages: dict[str, dict[str, ArtifactRecord]] = {}
            for _, kind, address in _used(method, kept):
                stages.setdefault(kind, {})[address] = kept[address]
            lines += [_effort(stage, label(method[0]), list(used.values())) for stage, used in stages.items()]
        if lines:
            found.append((comparison, sorted(lines, key=lambda effort: effort.label)))
    return found


def _effort(stage: str, name: str, trainings: Sequence[ArtifactRecord]) -> Effort:
    made = [round(each.history[-1]["update"]) for each in trainings]
    best = [each.best_update for each in trainings]
    allowed = trainings[0].config.get("train", {}).get("updates")
    return Effort(stage, name, allowed, (min(made), max(made)), (min(best), max(best)), len(trainings))


def learning_curves(
    records: Iterable[RunRecord], kept: Mapping[str, ArtifactRecord], measure: str = "score"
) -> list[tuple[Comparison, list[Learning]]]:
    """Collect the learning curves of every table, by stage; what methods share appears once.

    Parameters
    ----------
    kept : the artifacts whose training is known, by hash.
    measure : of every validation; that which not every stage has (``alignment``) is of those that have it.
    """
    kept = {address: record for address, record in _trained(kept).items() if measure in record.history[-1]}
    found = []
    for comparison, group in comparable(records):
        users: dict[str, dict[str, RunRecord]] = {}
        for method in methods(group).values():
            for run, _, address in _used(method, kept):
                users.setdefault(address, {}).setdefault(label(run), run)
        shared: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for address, named in users.items():
            shared.setdefault((kept[address].kind, tuple(sorted(named))), []).append(address)
        lines = [
            Learning(
                stage=stage,
                label=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
                causal=any(users[addresses[0]][name].causal for name in names),
                curves=tuple(
                    tuple((entry["update"], entry[measure]) for entry in kept[address].history)
                    for address in sorted(addresses)
                ),
            )
            for (stage, names), addresses in sorted(shared.items())
        ]
        if lines:
            found.append((comparison, lines))
    return found


def reached(records: Iterable[RunRecord], kept: Mapping[str, ArtifactRecord]) -> list[tuple[Comparison, list[Reached]]]:
    """Collect R2 against the score of every stage, for every table: is a better teacher's student better?"""
    kept = _trained(kept)
    found = []
    for comparison, group in comparable(records):
        lines = []
        sessions: dict[str, set[str]] = {}
        for run in group:
            sessions.setdefault(run.fold, set()).add(run.session)
        for method in methods(group).values():
            scores: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
            reached_by: dict[str, float] = {}
            for run, kind, address in _used(method, kept):
                # What was trained twice alike, to the last bit, is one: its address tells of the code, too.
                what = kept[address].digest
                reached_by[what] = kept[address].best_score
                scores.setdefault(kind, {}).setdefault((run.fold, what), {})[run.session] = run.metrics[HEADLINE]
            for stage, of_stage in sorted(scores.items()):
                points = tuple(
                    (fold, reached_by[what], float(np.mean(list(r2.values()))))
                    for (fold, what), r2 in sorted(of_stage.items())
                    if set(r2) == sessions[fold]
                )
                if points:
                    lines.append(Reached(stage, label(method[0]), method[0].causal, points))
        if lines:
            found.append((comparison, lines))
    return found


def _used(runs: Iterable[RunRecord], kept: Mapping[str, ArtifactRecord]) -> Iterator[tuple[RunRecord, str, str]]:
    """Yield every use of an artifact whose training is known: the run, the artifact's kind and its hash."""
    return ((run, use.kind, use.hash) for run in runs for use in run.artifacts if use.hash in kept)


def _trained(kept: Mapping[str, ArtifactRecord]) -> dict[str, ArtifactRecord]:
    """Leave out what was not trained at all: it has a start and no curve."""
    return {address: record for address, record in kept.items() if len(record.history) > 1}

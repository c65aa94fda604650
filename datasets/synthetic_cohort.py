"""`synthetic-cohort`: subjects of the simulator that nobody has looked at, with one held-out session each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from realmbench.dataset import DatasetInfo, Fold
from realmbench.recording import Recording

from .synthetic import SyntheticReach
from .synthetic.configuration import VARIANTS

# Subjects 0 and 1 are those of synthetic-reach, on whose test blocks its level was calibrated.
SUBJECTS = {"default": range(2, 14), "hard": range(2, 14), "tiny": range(1, 4)}


class SyntheticCohort(SyntheticReach):
    """The simulation of synthetic-reach for other subjects, one held-out session each: intervals are about subjects.

    Every subject has its own array, tuning, latent dynamics and noise, and is pretrained on by itself; the days of the
    held-out sessions take turns. These sessions are independent, which several of one subject are not.
    """

    variants: ClassVar[Mapping[str, str]] = {
        "default": "twelve subjects of synthetic-reach:default",
        "hard": "twelve subjects of synthetic-reach:hard",
        "tiny": "three subjects of synthetic-reach:tiny: for tests",
    }

    @property
    def info(self) -> DatasetInfo:
        variant = self.variant if self.variant in SUBJECTS else "default"
        minutes = sum(seconds for *_, seconds in _sessions(variant)) / 60
        return super().info.model_copy(
            update={
                "name": "synthetic-cohort",
                "version": "1",
                "summary": "the simulation of synthetic-reach for many subjects, a session of each",
                "size": f"{len(SUBJECTS[variant])} subjects, {minutes:.0f} minutes, generated on first use",
            }
        )

    def folds(self) -> list[Fold]:
        names: dict[int, dict[str, list[str]]] = {}
        for info, (subject, role, _, _) in zip(self.sessions(), self._plan()):
            names.setdefault(subject, {"train": [], "test": []})[role].append(info.name)
        return [
            Fold(name=f"s{subject}", pretrain=tuple(by_role["train"]), held_out=tuple(by_role["test"]))
            for subject, by_role in names.items()
        ]

    def load(self, session: str) -> Recording:
        return replace(super().load(session), dataset="synthetic-cohort")

    def _plan(self) -> list[tuple[int, str, int, int]]:
        return _sessions(self.variant)


def _sessions(name: str) -> list[tuple[int, str, int, int]]:
    """List subject, role, day and seconds of every session of a variant."""
    variant = VARIANTS[name]
    listed = []
    for number, subject in enumerate(SUBJECTS[name]):
        listed += [(subject, "train", day, variant.pretraining_s) for day in variant.pretraining_days]
        held_out = variant.held_out_days[number % len(variant.held_out_days)]
        listed.append((subject, "test", held_out, variant.held_out_s))
    return listed

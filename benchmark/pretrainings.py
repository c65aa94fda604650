"""How pretraining went: the records of artifacts, and the lines in which they are kept beside run records.

Artifacts lie in a machine's cache, their records with them. A result outlives the cache, and with these lines so do the
learning curves that explain it: one per artifact that the runs of a folder have used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from .files import locked, write_text_whole
from .records import read_lines

PRETRAININGS = "pretrainings.jsonl"


class ArtifactRecord(BaseModel):
    """What is known of an artifact: its address, and how it was made.

    Attributes
    ----------
    hash : address; of kind, configuration, data, seed, and the code that trains it.
    digest : of the arrays themselves (`realmbench.artifact.digest_of`).
    history : one dict per validation: ``update``, ``score``, and the mean training ``loss`` since the last one.
    warnings : of the training; records made before they were kept have none.
    """

    # A score that was not a number stays one: null would not be read back.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    kind: str
    hash: str
    config: dict[str, Any]
    dataset: str
    sessions: tuple[str, ...]
    seed: int
    parents: tuple[str, ...] = ()
    parameters: int
    seconds: float
    device: str
    history: list[dict[str, float]]
    digest: str
    warnings: tuple[str, ...] = ()
    versions: dict[str, str]
    created: str

    @property
    def best_score(self) -> float:
        """Validation score of the weights that were kept; where training happened, the start is no result."""
        return max((entry["score"] for entry in self._candidates), default=math.nan)

    @property
    def best_update(self) -> int:
        """Update after which the weights that were kept were made; 0 where none had a score."""
        best = max(self._candidates, key=lambda entry: entry["score"], default={"update": 0.0})
        return round(best["update"])

    @property
    def _candidates(self) -> list[dict[str, float]]:
        return [entry for entry in self.history[1:] or self.history if math.isfinite(entry["score"])]


def keep(folder: Path, used: Iterable[ArtifactRecord]) -> None:
    """Add the records of artifacts to those of a method's folder, each once."""
    path = folder / PRETRAININGS
    with locked(path):
        there = {record.hash: record for record in read_folder(folder)}
        new = {record.hash: record for record in used if record.hash not in there}
        if new:
            write_text_whole(path, "".join(f"{each.model_dump_json()}\n" for each in {**there, **new}.values()))


def read_folder(folder: Path) -> list[ArtifactRecord]:
    """Read what a method's folder keeps; nothing where no run has pretrained.

    Raises
    ------
    RealmbenchError : the file is damaged; the message names the line.
    """
    return read_lines(folder / PRETRAININGS, ArtifactRecord, "no artifact")


def read_pretrainings(results_dir: Path, suite: str) -> dict[str, ArtifactRecord]:
    """Read what all folders of a suite keep, by the artifacts' hashes."""
    folders = sorted(path.parent for path in (results_dir / suite).rglob(PRETRAININGS))
    return {record.hash: record for folder in folders for record in read_folder(folder)}

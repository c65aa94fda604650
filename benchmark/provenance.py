"""How a checkpoint was trained, as the file beside its weights says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import RealmbenchError
from .pretrainings import ArtifactRecord

TRAINING = "realmbench.json"


class Training(BaseModel):
    """How a checkpoint was trained.

    Attributes
    ----------
    stage : ``pretrained`` on other sessions only, or ``fitted`` to ``session``.
    config : every option of the decoder, ``decoder`` and ``train``.
    dataset : name, with variant.
    version, data : of the dataset, and its options that were set.
    artifacts : what pretraining left, each after what it was made from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["pretrained", "fitted"]
    model: str
    preset: str
    config: dict[str, dict[str, Any]]
    dataset: str
    version: str
    data: dict[str, Any]
    protocol: str
    front_end: str
    fold: str
    session: str | None
    seed: int
    artifacts: list[ArtifactRecord]


def read_training(folder: Path) -> Training:
    """Read how a checkpoint was trained.

    Raises
    ------
    RealmbenchError : the folder holds no checkpoint of realmbench.
    """
    path = folder / TRAINING
    if not path.is_file():
        raise RealmbenchError(f"{folder} is no checkpoint: it has no {TRAINING}; `realmbench pretrain` writes one")
    try:
        return Training.model_validate_json(path.read_text())
    except ValidationError as error:
        raise RealmbenchError(f"{path} is damaged; write the checkpoint again") from error

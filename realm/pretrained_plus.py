"""The networks of `realm-student-plus` and its teacher as transformers loads them, with all that a device needs.

Apart from `pretrained`: on that hang the records of every decoder of REALM, on this those of these two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from realmbench.session import Session
from realmbench.training.network_decoder import load_arrays_into

from .plus import PlusConfig, make_network
from .pretrained import RealmOutput, RealmPreTrainedModel, describe_session, save_model


class RealmPlusConfig(PreTrainedConfig):
    """Shape of a network of `realm-student-plus`, and the session that it decodes.

    Parameters
    ----------
    network : the fields of `PlusConfig`.
    session, front_end : as of `RealmConfig`.
    """

    model_type = "realm-plus"

    def __init__(
        self,
        network: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] | None = None,
        front_end: str | None = None,
        **others: Any,
    ) -> None:
        self.network = dict(network or {})
        self.session = None if session is None else dict(session)
        self.front_end = front_end
        super().__init__(**others)


class RealmPlusForDecoding(RealmPreTrainedModel):
    """The network of `realm-student-plus`: its normaliser, its session's read-in and its units included."""

    config_class = RealmPlusConfig  # type: ignore[assignment]

    def __init__(self, config: RealmPlusConfig) -> None:
        super().__init__(config)
        self.network = make_network(PlusConfig(**config.network))
        self.post_init()

    def forward(self, frames: torch.Tensor, mask: torch.Tensor | None = None) -> RealmOutput:
        """Map (B, T, C, F) normalised frames to normalised targets; parameters as of `RealmForDecoding.forward`."""
        frames, mask = self.silenced(frames, mask)
        frames = self.network.steady(frames)
        said = self.network.read_in(frames)  # (B, T, K)
        hidden = self.network.encode(frames, mask, said).final  # (B, T, d)
        prediction = self.network.units(self.network.read_out(hidden, said))  # (B, T, D)
        return RealmOutput(prediction=prediction, last_hidden_state=hidden)


def save_plus(
    folder: Path, network: PlusConfig, arrays: Mapping[str, np.ndarray], front_end: str, session: Session | None
) -> None:
    """Write a network's arrays as a `RealmPlusForDecoding`; ``session`` is the one that it was fitted to."""
    config = RealmPlusConfig(network.model_dump(mode="json"), describe_session(session), front_end)
    model = RealmPlusForDecoding(config)
    load_arrays_into(model.network, arrays)
    save_model(model, folder)


AutoConfig.register(RealmPlusConfig.model_type, RealmPlusConfig, exist_ok=True)
AutoModel.register(RealmPlusConfig, RealmPlusForDecoding, exist_ok=True)

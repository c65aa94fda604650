"""REALM's networks as transformers loads them: a configuration, weights in safetensors, and `from_pretrained`.

A checkpoint of the session that it was fitted to also holds that session's shape and normalisation, with which frames
of the front end that it names become what the network expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, logging

from realmbench.errors import RealmbenchError
from realmbench.session import Normaliser, Session
from realmbench.training.network_decoder import load_arrays_into

from .encoder import EncoderConfig, RealmEncoder, RealmNetwork


class RealmConfig(PreTrainedConfig):
    """Shape of a network, and the session that it decodes.

    Parameters
    ----------
    encoder : the fields of `EncoderConfig`.
    outputs, history, skip : as of `RealmNetwork`; without outputs the network is the encoder alone.
    session : what `describe_session` returns, or None.
    front_end : name of the front end whose frames the network takes.
    """

    model_type = "realm"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        outputs: int = 0,
        history: int = 1,
        skip: bool = False,
        session: Mapping[str, Any] | None = None,
        front_end: str | None = None,
        **others: Any,
    ) -> None:
        self.encoder = dict(encoder or {})
        self.outputs = outputs
        self.history = history
        self.skip = skip
        self.session = None if session is None else dict(session)
        self.front_end = front_end
        super().__init__(**others)


@dataclass
class RealmOutput(ModelOutput):
    """What a forward pass gives.

    Attributes
    ----------
    prediction : (B, T, D) normalised targets; None of an encoder alone.
    last_hidden_state : (B, T, d).
    """

    prediction: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class RealmPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = RealmConfig
    base_model_prefix = "network"  # so that an encoder finds its weights in a checkpoint that has a head too
    main_input_name = "frames"

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave weights as the layers have drawn them: Mamba-2's step sizes and decays are not normal numbers."""

    def decoded_session(self) -> Session:
        """Return the session that the network was fitted to.

        Raises
        ------
        RealmbenchError : it was fitted to none, as teachers and students before fine-tuning.
        """
        if self.config.session is None:
            raise RealmbenchError("this checkpoint was fitted to no session; fine-tune it first")
        return _session_of(self.config.session)

    def silenced(self, frames: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames with channels that are not usable at 0, whatever they hold, and the (B, C) usable ones.

        Those are the given ones, or the fitted session's, or all.
        """
        if mask is None:
            session = self.config.session
            channels = [True] * frames.shape[2] if session is None else session["mask"]
            mask = torch.tensor(channels, device=frames.device).expand(len(frames), -1)
        mask = mask.bool()
        return frames.where(mask[:, None, :, None], 0), mask


class RealmModel(RealmPreTrainedModel):
    """An encoder alone: a teacher, or a student before it has a head."""

    def __init__(self, config: RealmConfig) -> None:
        super().__init__(config)
        self.encoder = RealmEncoder(EncoderConfig(**config.encoder))
        self.post_init()

    def forward(self, frames: torch.Tensor, mask: torch.Tensor | None = None) -> RealmOutput:
        """Map (B, T, C, F) normalised frames, and the (B, C) mask of usable channels, to hidden states."""
        return RealmOutput(last_hidden_state=self.encoder(*self.silenced(frames, mask)))


class RealmForDecoding(RealmPreTrainedModel):
    """An encoder with its head."""

    def __init__(self, config: RealmConfig) -> None:
        super().__init__(config)
        encoder = RealmEncoder(EncoderConfig(**config.encoder))
        self.network = RealmNetwork(encoder, config.outputs, config.history, config.skip)
        self.post_init()

    def forward(self, frames: torch.Tensor, mask: torch.Tensor | None = None) -> RealmOutput:
        """Map (B, T, C, F) normalised frames to normalised targets.

        Parameters
        ----------
        mask : (B, C) usable channels; those of the session that the network was fitted to by default. What others
            hold is not looked at.
        """
        frames, mask = self.silenced(frames, mask)
        hidden = self.network.encoder(frames, mask)  # (B, T, d)
        return RealmOutput(prediction=self.network.decode(hidden, frames), last_hidden_state=hidden)


def save_encoder(folder: Path, config: EncoderConfig, arrays: Mapping[str, np.ndarray], front_end: str) -> None:
    """Write an encoder's arrays as a `RealmModel`."""
    model = RealmModel(RealmConfig(config.model_dump(), front_end=front_end))
    load_arrays_into(model.encoder, arrays)
    save_model(model, folder)


def save_network(
    folder: Path, network: RealmNetwork, arrays: Mapping[str, np.ndarray], front_end: str, session: Session | None
) -> None:
    """Write a network's arrays as a `RealmForDecoding`; ``network`` says of what shape they are."""
    config = RealmConfig(
        network.encoder.config.model_dump(),
        network.head.out_features,
        network.history,
        network.skip is not None,
        describe_session(session),
        front_end,
    )
    model = RealmForDecoding(config)
    load_arrays_into(model.network, arrays)
    save_model(model, folder)


def without_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name the arrays of a checkpoint as the network inside the model names them."""
    return {name.partition(".")[2]: array for name, array in arrays.items()}


def describe_session(session: Session | None) -> dict[str, Any] | None:
    """Return a session's identity, shape and normalisation as JSON values; None of none."""
    if session is None:
        return None
    normaliser = {name: value.tolist() for name, value in vars(session.normaliser).items()}
    return {
        "dataset": session.dataset,
        "subject": session.subject,
        "name": session.name,
        "rate": session.rate,
        "mask": session.mask.tolist(),
        "normaliser": normaliser,
        "feature_names": list(session.feature_names),
        "target_names": list(session.target_names),
    }


def _session_of(described: Mapping[str, Any]) -> Session:
    arrays = {name: np.asarray(value, np.float32) for name, value in described["normaliser"].items()}
    return Session(
        described["dataset"],
        described["subject"],
        described["name"],
        described["rate"],
        np.asarray(described["mask"], bool),
        Normaliser(**arrays),
        tuple(described["feature_names"]),
        tuple(described["target_names"]),
    )


def save_model(model: RealmPreTrainedModel, folder: Path) -> None:
    """Save without transformers' bar: it is a matter of milliseconds."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


AutoConfig.register(RealmConfig.model_type, RealmConfig, exist_ok=True)
AutoModel.register(RealmConfig, RealmModel, exist_ok=True)

"""Networks with a part of their own for every session, trained on many sessions and fitted to a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from realmbench.artifact import Trained
from realmbench.decoder import Context
from realmbench.seeds import stream_seed
from realmbench.session import SessionData

from .loop import TrainOptions, fit, window_sampler
from .network_decoder import load_arrays_into, module_arrays
from .windows import Batch, ValidationR2


class SessionTable(nn.Module):
    """One learnt tensor per session; all start alike, so that what electrodes share is found by all in the same place.

    Parameters
    ----------
    sessions : number of them.
    shape : of each tensor.
    deviation : of its initial values.
    """

    def __init__(self, sessions: int, *shape: int, deviation: float = 0.02) -> None:
        super().__init__()
        self.rows = nn.Parameter((deviation * torch.randn(1, *shape)).repeat(sessions, *[1] * len(shape)))

    def forward(self, session: torch.Tensor | None, batch: int) -> torch.Tensor:
        """Return (B, *shape) for the sessions' numbers (B,); None means the only session of a deployed network."""
        if session is None:
            session = torch.zeros(batch, dtype=torch.long, device=self.rows.device)
        return self.rows[session]


def load_pretrained(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load what pretraining on many sessions left into a network of one session.

    Shared weights are taken as they are; a table's only row starts at the mean of the pretrained rows.
    """
    tables = {name for name, module in network.named_modules() if isinstance(module, SessionTable)}
    rows = {f"{name}.rows" if name else "rows" for name in tables}
    load_arrays_into(
        network, {name: array.mean(0, keepdims=True) if name in rows else array for name, array in arrays.items()}
    )


def train_on_sessions(
    network: nn.Module,
    predict: Callable[[Batch], torch.Tensor],
    kind: str,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    config: Mapping[str, Any],
) -> Trained:
    """Train a network on the task of many sessions at once: mean squared error, stopped by mean validation R2.

    Parameters
    ----------
    predict : runs the network on a batch and returns (B, T, D).
    kind : of the artifact; names the random streams, the checkpoint and the progress line.
    config : everything that shapes the training.
    """
    result = fit(
        network,
        lambda batch: nn.functional.mse_loss(predict(batch), batch.y),
        ValidationR2(sessions, predict, context.device),
        window_sampler(sessions, options, context, kind),
        options,
        stream_seed(context.seed, kind, "dropout"),
        context.checkpoint(kind, config, sessions),
        lambda share, best: context.on_progress(f"{kind}: validation R2 {best:.3f}", share),
        start_counts=False,
    )
    return Trained(module_arrays(network), sum(part.numel() for part in network.parameters()), *result)

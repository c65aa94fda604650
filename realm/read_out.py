"""The published label-free evaluation: a frozen encoder and a ridge regression on its last eleven hidden states.

"Label-free" is said of the encoder; the read-out has the held-out session's labels (Wu et al. 2026, evaluation of the
second version).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge

from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.metrics import r2_for_selection
from realmbench.session import Segment, SessionData

from .encoder import RealmNetwork, stacked

# Hidden states t - 10 to t.
STACKED_FRAMES = 11
STRENGTHS = tuple(10.0**power for power in range(7))


def fit_read_out(network: RealmNetwork, session: SessionData, context: Context) -> None:
    """Set the network's head to the ridge regression whose strength validation chose, refitted on all samples.

    Raises
    ------
    RealmbenchError : the session has no training segment.
    """
    if not session.train:
        raise RealmbenchError(
            "decoder.adaptation=ridge fits its read-out on the held-out session; none of it was given"
        )
    network.eval().requires_grad_(False)
    train = _joined(network, session.train, session.mask)
    validation = _joined(network, session.validation, session.mask)
    scores = []
    for number, strength in enumerate(STRENGTHS):
        context.on_progress(f"read-out: ridge {strength:g}", number / (len(STRENGTHS) + 1))
        predicted = Ridge(alpha=strength).fit(*train).predict(validation[0])
        # scikit-learn drops the axis of a single output.
        scores.append(r2_for_selection(validation[1], predicted.reshape(validation[1].shape)))
    x, y = (np.concatenate(parts) for parts in zip(train, validation))
    best = Ridge(alpha=STRENGTHS[int(np.argmax(scores))]).fit(x, y)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(np.atleast_2d(best.coef_)))
        network.head.bias.copy_(torch.from_numpy(np.atleast_1d(best.intercept_)))
    network.head.requires_grad_(True)  # what was fitted; all else is as pretraining left it


@torch.no_grad()
def _joined(network: RealmNetwork, segments: tuple[Segment, ...], mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 11 d) stacked hidden states and (N, D) targets of all scored frames."""
    device = network.head.weight.device
    x, y = [], []
    for segment in segments:
        frames = torch.from_numpy(segment.x).to(device)[None]
        hidden = network.encoder(frames, torch.from_numpy(mask).to(device)[None])  # (1, T, d)
        x.append(stacked(hidden, STACKED_FRAMES)[0, segment.warm_up :].float().cpu().numpy())
        y.append(segment.y[segment.warm_up :])
    return np.concatenate(x), np.concatenate(y)

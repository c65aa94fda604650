"""Baselines that begin from other sessions: networks of one session, trained on the task of many others first.

REALM's student has seen the pretraining sessions, `gru` and `tcn` have not: what it is ahead of them by may be those
sessions and neither its recipe nor its network. These have seen the same ones, and have no part of a session's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from realmbench.decoder import Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.steady import SteadyInput

from .convolutional import SIZES as TCN_SIZES
from .convolutional import Tcn
from .recurrent import SIZES as RECURRENT_SIZES
from .recurrent import Gru
from .taught import TaughtDecoder

# As many updates as REALM's student has, on other sessions and on the held-out one.
PRETRAIN: Mapping[str, dict[str, Any]] = {
    "tiny": {},
    "small": {},
    "paper": {"updates": 49_500, "evaluate_every": 495, "batch_size": 32},
}
FINETUNE: Mapping[str, dict[str, Any]] = {
    "tiny": {"updates": 100},
    "small": {"updates": 400, "evaluate_every": 25},
    "paper": {"updates": 700, "evaluate_every": 14, "batch_size": 32},
}


def staged(sizes: Mapping[str, Preset]) -> dict[str, Preset]:
    """Return presets of one stage as presets of two: the same on the pretraining sessions, less on the held-out one."""
    return {
        name: Preset(
            decoder=preset.decoder,
            train={
                "pretrain": {**preset.train, **PRETRAIN[name]},
                "finetune": {**preset.train, **FINETUNE[name], "learning_rate": 5e-4},
            },
        )
        for name, preset in sizes.items()
    }


class Pooled(TaughtDecoder):
    """Pretraining before a decoder of one session: ``class PooledGru(Pooled, Gru)``."""

    depends_on: ClassVar[tuple[str, ...]] = (
        *TaughtDecoder.depends_on,
        "realmbench.steady",
        "realmbench.baselines.recurrent",
        "realmbench.baselines.convolutional",
    )


SEARCHED: Mapping[str, SearchDimension] = {
    "train.pretrain.learning_rate": Range(3e-4, 1e-2, log=True),
    "train.finetune.learning_rate": Range(5e-5, 3e-3, log=True),
    "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
}


class PooledGru(Pooled, Gru):
    """Control: `gru` trained on the pretraining sessions first, then on the held-out one."""

    kind = "gru-pooled"
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        staged(RECURRENT_SIZES),
        {
            "train.pretrain.learning_rate": 0.00468,
            "train.finetune.learning_rate": 0.000762,
            "decoder.dropout": 0.2,
            "decoder.layers": 1,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {**SEARCHED, "decoder.layers": Choice((1, 2))}


class PooledTcn(Pooled, Tcn):
    """Control: `tcn` trained on the pretraining sessions first, then on the held-out one."""

    kind = "tcn-pooled"
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        staged(TCN_SIZES),
        {
            "train.pretrain.learning_rate": 0.0077,
            "train.finetune.learning_rate": 0.00278,
            "decoder.dropout": 0.1,
            "decoder.kernel": 3,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {**SEARCHED, "decoder.kernel": Choice((2, 3, 5))}


class SteadyPooledGru(SteadyInput, PooledGru):
    """Control: `gru-pooled` on steadied frames."""

    kind = "gru-pooled-steady"


class SteadyPooledTcn(SteadyInput, PooledTcn):
    """Control: `tcn-pooled` on steadied frames."""

    kind = "tcn-pooled-steady"

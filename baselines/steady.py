"""Controls: baselines behind a normaliser that goes on learning, for what that alone is worth."""

from __future__ import annotations

from typing import ClassVar

from realmbench.steady import SteadyInput

from .recurrent import Gru


class SteadyGru(SteadyInput, Gru):
    """The GRU on steadied frames."""

    depends_on: ClassVar[tuple[str, ...]] = (*Gru.depends_on, "realmbench.baselines.recurrent", "realmbench.steady")

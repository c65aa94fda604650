"""What the published numbers of parameters contain.

The authors' counts (Wu et al. 2026) hold parts that take no part in any prediction: a table of session embeddings, and
a projection in every bidirectional block. Ours are without them; here both are counted, so that the sums can be
compared.
"""

from __future__ import annotations

import numpy as np
import torch

from realmbench.session import Normaliser, Session

from .encoder import EncoderConfig, RealmEncoder, RealmNetwork, parameter_count

# The authors' data: 96 channels, their amplitude alone, at 100 Hz.
CHANNELS, RATE = 96, 100
TARGETS = ("velocity_x", "velocity_y")
# Rows of the unused tables of session embeddings.
STUDENT_SESSIONS, TEACHER_SESSIONS = 200, 34


def published_session() -> Session:
    """Return a session of the shape of the authors' data, without data."""
    zeros, ones = np.zeros((CHANNELS, 1), np.float32), np.ones((CHANNELS, 1), np.float32)
    normaliser = Normaliser(zeros, ones, zeros[: len(TARGETS), 0], ones[: len(TARGETS), 0])
    usable = np.ones(CHANNELS, bool)
    return Session("published", "any", "any", RATE, usable, normaliser, ("amplitude",), TARGETS)


def published_sizes(config: EncoderConfig, is_teacher: bool, keeps_skip: bool = True) -> dict[str, int]:
    """Count the parameters of a network by part; ``sum`` is the count as published.

    Parameters
    ----------
    config : of the encoder.
    is_teacher : the published count is of the encoder alone; a student's holds its head and its skip.
    keeps_skip : the skip takes part in predictions; in the second version fine-tuning sets it to zero.
    """
    with torch.device("meta"):
        encoder = RealmEncoder(config)
        network = RealmNetwork(encoder, len(TARGETS))
    blocks = parameter_count(encoder.blocks) + parameter_count(encoder.norm)
    counts = {"tokenizer": parameter_count(encoder.tokenizer), "blocks and norm": blocks}
    if not is_teacher:
        counts["head"] = parameter_count(network.head)
        if network.skip is not None:
            counts["skip" if keeps_skip else "unused: skip"] = parameter_count(network.skip)
    if config.variant == "paper":
        width = config.d_model
        counts["unused: session table"] = width * (TEACHER_SESSIONS if is_teacher else STUDENT_SESSIONS)
        if not config.causal:
            counts["unused: projections"] = config.layers * (width**2 + width)
    used = sum(count for part, count in counts.items() if not part.startswith("unused"))
    return {**counts, "used": used, "sum": sum(counts.values())}

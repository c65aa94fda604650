"""Presets of REALM's decoders: sizes, recipes as published, and what tuning found.

No record hangs on this file: every record holds the values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from realmbench.decoder import Preset, tuned

from .encoder import PRESETS

TINY_STAGE = {"updates": 200, "evaluate_every": 25, "window_s": 3.0, "patience": 4}
SMALL_STAGE = {"updates": 1000, "evaluate_every": 50}
# Fine-tuning takes smaller steps than training from scratch: it must not unlearn what other sessions taught.
TINY_FINETUNE = {**TINY_STAGE, "updates": 100, "learning_rate": 5e-4}
SMALL_FINETUNE = {"updates": 400, "evaluate_every": 25, "learning_rate": 5e-4}

# The authors' rates and batches; their epochs as updates, counted on the second version's sessions. Windows of masked
# autoencoding overlap by half: 440 updates of 32 go once over those of the 31 sessions that train. A student's do not
# overlap, and of the larger corpus 20 sessions of some 264 windows train: 165 updates. 7 are one epoch of a held-out
# session of usual length (theirs have 3 to 11). Looks at the validation data come every few epochs, so that patience in
# looks is theirs in epochs.
PAPER_STAGE = {"batch_size": 32, "learning_rate": 5e-4, "weight_decay": 1e-5, "warm_up_share": 0.0}
PAPER_STUDENT = {**PAPER_STAGE, "updates": 49_500, "evaluate_every": 495, "patience": 10}  # 300 epochs, 3 a look
PAPER_FINETUNE = {**PAPER_STAGE, "updates": 700, "evaluate_every": 14, "patience": 10}  # 100 epochs, 2 a look
PAPER_FINETUNE_V1 = {**PAPER_FINETUNE, "updates": 1050}  # 150
# Second version: 16 x 24 windows; 30 of 300 epochs of warm-up from 0.3 of the rate, then 0.995 per epoch.
PAPER_TEACHER = {
    **PAPER_STAGE,
    "updates": 11_000,
    "evaluate_every": 110,  # 3 epochs
    "patience": 10,
    "batch_size": 384,
    "learning_rate": 1.53e-3,
    "schedule": "exponential",
    "final_share": round(0.995**270, 4),
    "warm_up_share": 0.1,
    "warm_up_from": 0.3,
}
# First version: 16 windows and 200 epochs as its README commands (the code's defaults are 32 and 30, which would end
# with the warm-up); 30 of warm-up, then 0.995 per epoch, a patience of 100. Epochs are of the second version's sessions
# here too: its own 130 hours would make twelve times as many updates.
PAPER_TEACHER_V1 = {
    **PAPER_STAGE,
    "updates": 176_000,
    "evaluate_every": 2200,  # 2.5 epochs
    "patience": 40,
    "batch_size": 16,
    "learning_rate": 6.25e-4,
    "schedule": "exponential",
    "final_share": round(0.995**170, 4),
    "warm_up_share": 0.15,
}
# No one has published a network of one session: as the student, with an end that it can reach.
PAPER_SCRATCH = {**PAPER_STAGE, "updates": 20_000, "evaluate_every": 250}
# What the published network and recipe set; the second version of the code is the authors' current one.
PAPER_BLOCKS = {"variant": "paper", "energy_s": None, "memory_s": None}
PAPER_NETWORK = {**PAPER_BLOCKS, "freeze_tokenizer": True}
PAPER_V2 = {"distillation": {"task": 0.0, "alignment": 1.0, "reconstruction": 1.0}, "fresh_head": True}
# As the commands in their first README; defaults of its code aligned two layers and froze four.
PAPER_V1 = {
    "distillation": {"task": 1.0, "alignment": 1.0, "reconstruction": 0.1, "aligned_layers": 1},
    "fresh_head": True,
    "fresh_skip": True,
}

# Found by `realmbench tune` for realm-student (results/tuning). Student, teacher and controls share it: a comparison
# with a control is of the recipe only if everything else is the same, and one teacher serves all.
FAMILY = {
    "train.student.learning_rate": 0.00894,
    "train.task.learning_rate": 0.00894,  # the same windows and the same loss as the student's
    "train.finetune.learning_rate": 0.00136,
    "train.teacher.learning_rate": 0.00672,
    "decoder.dropout": 0.3,
    "decoder.freeze_tokenizer": False,
}


def stage_presets(*stages: str, found: dict[str, Any] | None = None) -> dict[str, Preset]:
    """Build the presets of a decoder that trains in these stages; none means one fit on the session alone.

    Parameters
    ----------
    found : what tuning found; what was found for the family by default.
    """
    presets = {}
    for name, stage, finetune in (
        ("tiny", TINY_STAGE, TINY_FINETUNE),
        ("small", SMALL_STAGE, SMALL_FINETUNE),
        ("paper", PAPER_STUDENT if stages else PAPER_SCRATCH, PAPER_FINETUNE),
    ):
        train: dict[str, Any] = {key: finetune if key == "finetune" else stage for key in stages}
        decoder: dict[str, Any] = dict(PRESETS[name])
        if name == "paper":
            decoder |= PAPER_NETWORK if stages else PAPER_BLOCKS
            if "teacher" in stages:
                decoder["drop_path"] = 0.1
                train["teacher"] = PAPER_TEACHER
        presets[name] = Preset(decoder=decoder, train=train or stage)
    prefixes = ("decoder.", *(f"train.{stage}." for stage in stages))
    if found is None:
        found = {key: value for key, value in FAMILY.items() if key.startswith(prefixes)}
    return tuned(presets, found)


def pooled_presets() -> dict[str, Preset]:
    """Build the presets of the student's control: of both recipes it has all but the distillation."""
    base = stage_presets("student", "finetune")
    own_v2, own_v1 = (
        {key: value for key, value in recipe.items() if key != "distillation"} for recipe in (PAPER_V2, PAPER_V1)
    )
    paper_v1 = _with(base["paper"], own_v1, {"finetune": PAPER_FINETUNE_V1})
    return {**base, "paper": _with(base["paper"], own_v2), "paper-v1": paper_v1}


def student_presets(
    tiny: dict[str, Any] | None = None, small: dict[str, Any] | None = None, paper: dict[str, Any] | None = None
) -> dict[str, Preset]:
    """Build the presets of a student that differs from REALM by these options, and both published recipes.

    A preset whose student is smaller or larger than the teacher keeps the teacher of `realm-student`.
    """
    base = stage_presets("teacher", "student", "finetune")
    trained_v1 = {"teacher": PAPER_TEACHER_V1, "finetune": PAPER_FINETUNE_V1}
    return {
        "tiny": _with(base["tiny"], tiny),
        "small": _with(base["small"], small),
        "paper": _with(base["paper"], {**PAPER_V2, **(paper or {})}),
        "paper-v1": _with(base["paper"], {**PAPER_V1, "embed_sessions": True, **(paper or {})}, trained_v1),
    }


def _with(preset: Preset, decoder: dict[str, Any] | None, train: dict[str, Any] | None = None) -> Preset:
    return Preset(decoder={**preset.decoder, **(decoder or {})}, train={**preset.train, **(train or {})})


def sized(layers: Sequence[int], teacher: Sequence[int], expand: int) -> dict[str, dict[str, int]]:
    """Describe students of other depths and inner widths at ``tiny``, ``small`` and ``paper`` and the same teacher."""
    return {
        name: {"layers": own, "expand": expand, "teacher_layers": theirs, "teacher_expand": 2}
        for name, own, theirs in zip(("tiny", "small", "paper"), layers, teacher)
    }

"""Model cards: what a checkpoint is, what it was trained on and what it reaches, made from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .dataset import DatasetInfo
from .options import leaves
from .pretrainings import ArtifactRecord
from .provenance import Training
from .records import RunRecord

HEAD = """---
library_name: realmbench
tags: [local-field-potentials, brain-computer-interface, {model}]
---
# {title}

"""


def card_of_artifact(training: Training, info: DatasetInfo) -> str:
    """Write the card of what pretraining left."""
    last = training.artifacts[-1]
    lines = [
        f"What the pretraining of `{training.model}` left; no held-out session was seen. Fit it to one with",
        "",
        "    realmbench finetune --from THIS_FOLDER --session NAME",
        "",
        *_data(training, info, [f"- pretraining sessions: {', '.join(last.sessions)}"]),
        *_artifacts(training.artifacts),
        *_options(training.config),
        *_versions(last.versions, last.device),
    ]
    return HEAD.format(model=training.model, title=f"{training.model} ({training.preset}), pretrained") + "\n".join(
        lines
    )


def _real_time(record: RunRecord) -> str:
    """Say whether it runs in real time."""
    if record.causal:
        return "It is causal."
    if record.look_ahead_s is None:
        return "It sees the whole block of the future and cannot run in real time."
    return f"It runs in real time, up to {record.look_ahead_s:g} s late."


def card_of_run(training: Training, record: RunRecord, info: DatasetInfo) -> str:
    """Write the card of a decoder that was fitted to a session."""
    other = [name for name in record.training_sessions if name != record.session]
    latency = record.latency
    lines = [
        f"`{training.model}` fitted to session {record.session} of {record.dataset}, seed {record.seed}. "
        + _real_time(record),
        "",
        "| on the test blocks of that session | |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in record.metrics.items()),
        "",
        "One session and one seed: a checkpoint, not a result; results are means over sessions and seeds.",
        "",
        *_data(
            training,
            info,
            [
                f"- pretraining sessions: {', '.join(other) if other else 'none'}",
                f"- seconds of the session: {record.train_s:.0f} to train, {record.validation_s:.0f} to choose on, "
                f"{record.test_s:.0f} to test",
            ],
        ),
        "## Cost",
        "",
        f"- parameters: {record.parameters_deployed:,} deployed, {record.parameters_trained:,} trained on this session",
        f"- training: {record.training_seconds:.0f} s, {record.training_seconds_with_artifacts:.0f} s with "
        f"pretraining; {record.device}, {record.threads} thread(s)",
        *([f"- step of a stream: {latency.p50:.0f} µs (median), {latency.p99:.0f} µs (p99)"] if latency else []),
        "",
        *_artifacts(training.artifacts),
        *_options(training.config),
        *_versions(record.versions, record.device),
        *(["## Warnings", "", *(f"- {warning}" for warning in record.warnings), ""] if record.warnings else []),
    ]
    title = f"{training.model} ({training.preset}) for {record.session}"
    return HEAD.format(model=training.model, title=title) + "\n".join(lines)


def _data(training: Training, info: DatasetInfo, more: Sequence[str]) -> list[str]:
    return [
        "## Data",
        "",
        f"- {training.dataset}, version {training.version}: {info.summary} ({info.licence}; {info.citation})",
        f"- protocol {training.protocol}, fold {training.fold}, front end {training.front_end}",
        *more,
        "",
    ]


def _artifacts(records: Sequence[ArtifactRecord]) -> list[str]:
    if not records:
        return []
    rows = []
    for record in records:
        updates = int(record.history[-1]["update"]) if record.history else 0
        rows.append(
            f"| {record.kind} | `{record.hash}` | {record.parameters:,} | {updates} | {record.best_score:.3f} | "
            f"{record.seconds:.0f} |"
        )
    head = [
        "| stage | artifact | parameters | updates | best validation score | seconds |",
        "|---|---|---|---|---|---|",
    ]
    return ["## Pretraining", "", *head, *rows, ""]


def _options(config: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [f"| {name} | {value} |" for name, value in leaves(config).items()]
    return ["## Options", "", "| option | value |", "|---|---|", *rows, ""]


def _versions(versions: Mapping[str, str], device: str) -> list[str]:
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return ["## Made with", "", f"{listed}; {device}.", ""]

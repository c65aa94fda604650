"""How near a student's representation is to its teacher's: the published cosine, and what else has been proposed.

All map two (B, T, d) residual streams to a loss that is 0, or lowest, where they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from realmbench.training.windows import Batch

# InfoNCE: steps compared per window, and the temperature.
CONTRASTED_STEPS = 32
TEMPERATURE = 0.1


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus the cosine at every step (Wu et al. 2026)."""
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error after a layer norm without weights, so that scale does not count."""
    shape = student.shape[-1:]
    return functional.mse_loss(functional.layer_norm(student, shape), functional.layer_norm(teacher, shape))


def centred_kernel(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus linear centred kernel alignment over all steps of the batch (Kornblith et al. 2019, arXiv 1905.00414).

    Rotations and one common scale do not count.
    """
    a = student.flatten(0, 1) - student.mean((0, 1))  # (B T, d)
    b = teacher.flatten(0, 1) - teacher.mean((0, 1))  # (B T, d)
    norms = torch.linalg.matrix_norm(a.T @ a) * torch.linalg.matrix_norm(b.T @ b)
    return 1 - (b.T @ a).square().sum() / norms


def contrast(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """InfoNCE: every student step must be nearest to its own teacher step among others of the same window.

    The steps are evenly spaced, so that those told apart are well apart in time (van den Oord et al. 2018,
    arXiv 1807.03748).
    """
    length = student.shape[1]
    picked = torch.linspace(0, length - 1, min(CONTRASTED_STEPS, length), device=student.device).round().long()
    a = functional.normalize(student[:, picked], dim=-1)  # (B, S, d)
    b = functional.normalize(teacher[:, picked], dim=-1)  # (B, S, d)
    scores = a @ b.transpose(1, 2) / TEMPERATURE  # (B, S, S)
    own = torch.arange(len(picked), device=student.device).expand(len(a), -1)  # (B, S)
    return functional.cross_entropy(scores.flatten(0, 1), own.flatten())


ALIGNMENTS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cosine": cosine,
    "mse": squared_error,
    "cka": centred_kernel,
    "infonce": contrast,
}


class AlignmentWatch:
    """Notes at every validation how far a student that learns is from its teacher.

    Parameters
    ----------
    teacher : a batch to its last residual stream (B, T, d); without one nothing is noted. It is asked once for every
        batch, so that these must come in the same order at every validation.
    kind : of the distance.
    """

    def __init__(self, teacher: Callable[[Batch], torch.Tensor] | None = None, kind: str = "cosine") -> None:
        self._teacher, self._kind = teacher, kind
        self._taught: list[torch.Tensor] = []
        self._distances: list[float] = []

    def note(self, batch: Batch, student: torch.Tensor) -> None:
        """Note the distance of the student's last residual stream (B, T, d) on the next batch."""
        if self._teacher is None:
            return
        number = len(self._distances)
        if number == len(self._taught):
            self._taught.append(self._teacher(batch))
        self._distances.append(ALIGNMENTS[self._kind](student, self._taught[number]).item())

    def __call__(self) -> dict[str, float]:
        """Return the mean distance of this validation, and begin the next."""
        distances, self._distances = self._distances, []
        return {"alignment": sum(distances) / len(distances)} if distances else {}


UNWATCHED = AlignmentWatch()

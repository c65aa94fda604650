"""Control: REALM's network and labels without a teacher, behind a normaliser that goes on learning."""

from __future__ import annotations

from typing import ClassVar

from realmbench.steady import SteadyInput

from .decoders import RealmPooled


class RealmPooledSteady(SteadyInput, RealmPooled):
    """`realm-pooled` on steadied frames: what `realm-student-plus` must beat besides its normaliser."""

    depends_on: ClassVar[tuple[str, ...]] = (*RealmPooled.depends_on, "realmbench.realm.decoders")

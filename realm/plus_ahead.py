"""`realm-student-plus` with a delay."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from .ahead import Delayed, DelayOptions
from .plus_decoder import PlusOptions, RealmStudentPlus


class PlusAheadOptions(PlusOptions, DelayOptions):
    """Everything of `realm-student-plus`, and the delay."""


class RealmStudentPlusAhead(Delayed, RealmStudentPlus):
    """`realm-student-plus` with a delay; what its read-in says of a frame is said without one."""

    depends_on: ClassVar[tuple[str, ...]] = (
        *RealmStudentPlus.depends_on,
        "realmbench.realm.ahead",
        "realmbench.realm.plus_decoder",
    )
    Options: ClassVar[type[BaseModel]] = PlusAheadOptions
    options: PlusAheadOptions

"""What a conformance run leaves: one line per check, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from realmbench.others_code import others_code

Status = Literal["pass", "fail", "error", "as declared", "not applicable"]
Subject = TypeVar("Subject")
NO_STREAM = "what needs the whole record has no stream"


class Failed(Exception):  # noqa: N818  # a verdict, not an error
    """The check's expectation does not hold."""


class NotApplicable(Exception):  # noqa: N818
    """The check has no meaning for this subject."""


@dataclass(frozen=True)
class Check:
    """One line of a report."""

    name: str
    status: Status
    detail: str

    @property
    def failed(self) -> bool:
        return self.status in ("fail", "error")


@dataclass(frozen=True)
class Report:
    """What was checked, and the verdict."""

    subject: str
    checks: tuple[Check, ...]
    verdict: str

    @property
    def passed(self) -> bool:
        return not any(check.failed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "passed": self.passed}


def run_check(name: str, function: Callable[[Subject], str], subject: Subject) -> Check:
    """Run one check: it returns a sentence about what it saw, or raises `Failed` or `NotApplicable`."""
    try:
        with others_code("what is checked"):
            return Check(name, "pass", function(subject))
    except NotApplicable as reason:
        return Check(name, "not applicable", str(reason))
    except Failed as reason:
        return Check(name, "fail", str(reason))
    except Exception as error:  # a third party's code may raise anything; the report shows what
        return Check(name, "error", f"{type(error).__name__}: {error}")

"""Fingerprints of code: what a module does changes them, what is said about it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench import fingerprint as fingerprints
from realmbench.dataset import Dataset
from realmbench.decoder import DECODERS
from realmbench.fingerprint import code_of, fingerprint, helpers_of, without_words
from realmbench.plan import RunRequest, make_plan

CODE = '''"""What the module is for."""

import math

TEXT = """# no comment

and no docstring"""  # a comment


def area(radius: float) -> float:
    """Return the area.

    Of a circle.
    """
    # In square units.
    return math.pi * radius**2
'''
BARE = '''import math
TEXT = """# no comment

and no docstring"""
def area(radius: float) -> float:
    return math.pi * radius**2'''


def test_only_words_are_taken_out() -> None:
    assert without_words(CODE) == BARE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('class A(Gru): """Doc."""', 'class A(Lstm): """Doc."""'),
        ('def a(): "doc"; return True', 'def a(): "doc"; return False'),
        ('"""doc"""; x = 1', '"""doc"""; x = 2'),
        ('x = 1  # \f\ndef a():\n    """doc"""\n', 'x = 2  # \f\ndef a():\n    """doc"""\n'),
        ('class A:\n    """é"""; x = 1', 'class A:\n    """é"""; x = 2'),
    ],
)
def test_code_beside_words_is_kept(first: str, second: str) -> None:
    assert without_words(first) != without_words(second)


def test_compiled_modules_are_known_by_their_bytes() -> None:
    assert len(code_of(["numpy.random.mtrand"])) == 16


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("Return the area.", "Return how large it is.", True),
        ("# In square units.", "# In square metres.\n\n    # Always.", True),
        ("radius**2", "radius**3", False),
        ("# no comment", "# none", False),
        ("comment\n\nand", "comment\nand", False),
    ],
)
def test_only_what_a_module_does_changes_its_code(
    before: str, after: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert before in CODE
    names = [f"toy_{number}_{tmp_path.name}" for number in (1, 2)]
    for name, source in zip(names, (CODE, CODE.replace(before, after))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    first, second = (code_of([name]) for name in names)
    assert (first == second) is same
    assert fingerprint(names[0]) != fingerprint(names[1])  # what makes data is held to every byte


def test_what_a_file_imports_counts_as_its_code(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leans.py").write_text(
        "from leant_on import RATES\nfrom realmbench.baselines.mean import Mean\n\nclass Leans(Mean):\n    'Leans.'\n"
    )
    codes = []
    for factor in ("1.0", "2.0", "1.0"):
        (tmp_path / "leant_on.py").write_text(f"RATES = [{factor}]\n")
        fingerprints._meaning.cache_clear()
        codes.append(make_plan(RunRequest(f"{tmp_path / 'leans.py'}:Leans", preset="tiny"), toy).code)
    assert codes[0] == codes[2] != codes[1]
    leans = DECODERS.get(f"{tmp_path / 'leans.py'}:Leans")
    assert helpers_of(leans) == ["leant_on", "realmbench.baselines.mean"]
    assert helpers_of(DECODERS.get("gru")) == []

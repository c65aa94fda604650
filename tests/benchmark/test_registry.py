"""The registry: lazy names, decorator, files, suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.decoder import DECODERS, Decoder
from realmbench.errors import RealmbenchError, UnknownNameError
from realmbench.registry import Registry


def fresh_registry() -> Registry[Decoder]:
    return Registry("model", "realmbench.decoders", ("realmbench.baselines:DECODERS",), "realmbench.decoder:Decoder")


def test_lazy_name_resolves_to_its_class() -> None:
    assert DECODERS.get("mean").__name__ == "Mean"


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'weiner'.*Did you mean 'wiener'"):
        DECODERS.get("weiner")


def test_decorator_registers_and_refuses_a_taken_name() -> None:
    registry = fresh_registry()
    mean = registry.get("mean")

    class Mine(mean):  # type: ignore[misc, valid-type]
        """My decoder."""

    assert registry.register("mine")(Mine) is Mine
    assert registry.get("mine") is Mine
    assert "mine" in registry.names()
    assert registry.summary("mine") == "My decoder."
    with pytest.raises(RealmbenchError, match="registered already"):
        registry.register("wiener")(Mine)


def test_class_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(RealmbenchError, match="must be a class derived from Decoder"):
        fresh_registry().register("wrong")(Dataset)  # type: ignore[arg-type]


def test_class_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from realmbench.decoder import Decoder\nclass Mine(Decoder):\n    'Mine.'\n")
    with pytest.raises(RealmbenchError, match=r"does not write adapt, .*predict"):
        DECODERS.get(f"{file}:Mine")


def test_class_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from realmbench.baselines.mean import Mean\nclass Mine(Mean):\n    'Mine.'\n")
    assert DECODERS.get(f"{file}:Mine").__name__ == "Mine"
    with pytest.raises(UnknownNameError, match="Did you mean 'Mine'"):
        DECODERS.get(f"{file}:Mini")
    with pytest.raises(RealmbenchError, match="name the class"):
        DECODERS.get(str(file))
    with pytest.raises(RealmbenchError, match="does not exist"):
        DECODERS.get(f"{tmp_path / 'other.py'}:Mine")


def test_file_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import a_module_that_is_not_there\n")
    with pytest.raises(RealmbenchError, match="a_module_that_is_not_there"):
        DECODERS.get(f"{file}:Mine")
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(RealmbenchError, match=r"script\.py cannot be imported: SystemExit: 0"):
        DECODERS.get(f"{script}:Mine")


def test_entry_point_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path with entry points, as pip would leave it."""
    (tmp_path / "plug_in.py").write_text(
        "from realmbench.baselines.mean import Mean\nclass Mine(Mean):\n    'Mine, installed.'\n"
    )
    information = tmp_path / "plug_in-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    points = "[realmbench.decoders]\nmine-installed = plug_in:Mine\nbroken-installed = plug_in:NotThere\n"
    (information / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine-installed" in DECODERS.names()
    assert DECODERS.get("mine-installed").__name__ == "Mine"
    assert DECODERS.summary("mine-installed") == "Mine, installed."
    with pytest.raises(RealmbenchError, match="'broken-installed' of plug-in cannot be loaded"):
        DECODERS.get("broken-installed")


def test_file_beside_that_python_does_not_find_is_explained(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("")
    file = tmp_path / "leans.py"
    file.write_text("import beside\n")
    with pytest.raises(RealmbenchError, match=f"No module named 'beside'; .* with PYTHONPATH={tmp_path}"):
        DECODERS.get(f"{file}:Mine")

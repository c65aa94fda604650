"""The floors hold: imports point one way, benchmark/ names no dataset and no decoder, bare folder names are unused."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from realmbench.decoder import DECODERS

ROOT = Path(__file__).parents[1]
FOLDERS = {"benchmark": "realmbench", "datasets": "realmbench.datasets", "baselines": "realmbench.baselines"}
FOLDERS["realm"] = "realmbench.realm"

FLOOR_1 = {
    "errors", "seeds", "files", "fingerprint", "options", "registry", "recording", "dataset", "metrics", "channels",
    "records", "manifest", "uncertainty", "search", "tuning_record",
    "pretrainings", "question",
}  # fmt: skip
FLOOR_2 = {
    "linear_gaussian",
    "front_end",
    "session",
    "protocol",
    "protocols",
    "artifact",
    "others_code",
    "decoder",
    "training",
    "networks",
    "bench",
    "provenance",
    "steady",
}
FLOOR_4 = {
    "bank",
    "single_run",
    "held_run",
    "suite",
    "sweep",
    "expected_time",
    "tuning",
    "tuning_study",
    "tuning_trial",
    "preparation",
    "evaluation",
    "cost",
    "machine",
    "fused_operations",
    "plan",
    "runner",
    "leaks",
    "conformance",
    "card",
    "checkpoint",
    "reproduction",
}
FLOOR_5 = {
    "statistics",
    "differences",
    "answers",
    "curves",
    "days",
    "stream_time",
    "learning",
    "leaderboard",
    "figures",
}
FLOOR_6 = {"cli", "render", "__init__", "__main__"}


def modules() -> list[tuple[str, Path]]:
    """Return (dotted name, file) of every module of the package."""
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join([package, *parts]), path))
    return found


def imported(name: str, path: Path) -> set[str]:
    """Return the absolute names that a module imports at its top or inside functions."""
    # The last part of a module's name is the module itself; relative imports count from its package.
    package = name.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names.add(target)
            names |= {f"{target}.{alias.name}" for alias in node.names}
    return names


def floor(name: str) -> int:
    """Return the floor of one of our modules."""
    parts = name.split(".")
    if parts[:2] in (["realmbench", "datasets"], ["realmbench", "baselines"], ["realmbench", "realm"]):
        return 3
    head = parts[1] if len(parts) > 1 else "__init__"
    for number, members in ((1, FLOOR_1), (2, FLOOR_2), (4, FLOOR_4), (5, FLOOR_5), (6, FLOOR_6)):
        if head in members:
            return number
    raise AssertionError(f"{name} stands on no floor; add it to docs/architecture.md and to this test")


MODULES = modules()
OURS = {name for name, _ in MODULES} | {name.removesuffix(".__init__") for name, _ in MODULES}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_downwards(name: str, path: Path) -> None:
    here = floor(name)
    for target in imported(name, path) & OURS - {"realmbench"}:
        there = floor(target)
        assert there <= here, f"{name} (floor {here}) imports {target} (floor {there})"
        if here == 3 and there == 3:
            assert target.split(".")[1] == name.split(".")[1], f"{name} knows {target}, of another family"
        if here > 3:
            assert there != 3, f"{name} must reach {target} through the registry"
        if here == 5:
            assert there in (1, 5), f"{name} reads run records only, not {target}"


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_no_bare_folder_is_imported(name: str, path: Path) -> None:
    heads = {target.split(".")[0] for target in imported(name, path) - OURS}
    assert not heads & {"benchmark", "datasets", "baselines", "realm", "results"}


@pytest.mark.parametrize("name", sorted(FLOOR_1 | FLOOR_5))
def test_light_floors_do_not_import_torch_or_scikit_learn(name: str) -> None:
    targets = imported(f"realmbench.{name}", ROOT / "benchmark" / f"{name}.py")
    assert not {target.split(".")[0] for target in targets} & {"torch", "sklearn", "transformers"}


def test_benchmark_names_no_dataset_and_no_decoder() -> None:
    from realmbench.dataset import DATASETS
    from realmbench.decoder import DECODERS

    # Command-line help may show examples; everything else must not know a name.
    names = {*DATASETS.names(), *DECODERS.names()} - {"mean"}
    for path in (ROOT / "benchmark").rglob("*.py"):
        if path.parent.name == "cli":
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & names, f"{path} names {strings & names}"


# Where what decides a decoder's numbers may lie besides its own module; the harness's own modules are in every key.
NUMBERS = ("realmbench.training", "realmbench.networks", "realmbench.linear_gaussian", "realmbench.steady",
           "realmbench.baselines.", "realmbench.realm.")  # fmt: skip
# Gives options their values, and every record holds those.
PRESETS = "realmbench.realm.presets"


def uncovered(module: str, covered: Sequence[str]) -> set[str]:
    """Return the modules of ours, except those covered, that a module imports, and what those import in turn."""
    paths, waiting, seen = dict(MODULES), [module], set()
    while waiting:
        name = waiting.pop()
        found = {other for other in imported(name, paths[name]) if other in paths and other.startswith(NUMBERS)} - seen
        seen |= found
        waiting += found
    return {other for other in seen if not any(other == part or other.startswith(f"{part}.") for part in covered)}


@pytest.mark.parametrize("name", DECODERS.names())
def test_old_results_are_dropped_when_anything_that_made_them_changes(name: str) -> None:
    decoder_class = DECODERS.get(name)
    assert not uncovered(decoder_class.__module__, (decoder_class.__module__, *decoder_class.depends_on, PRESETS))


def used_for_more_than_presets(source: str) -> set[str]:
    """Return the names that a module imports from `realm.presets` and uses outside of assignments to ``presets``."""
    tree = ast.parse(source)
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("presets")
        for alias in node.names
    }
    given = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "presets"
        for inner in ast.walk(node)
    }
    used = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in given)
    return {node.id for node in used} & names


def test_presets_give_options_their_values_and_nothing_else() -> None:
    """So no hash need hold them: every record has the values."""
    users = [path for name, path in MODULES if PRESETS in imported(name, path) and name != PRESETS]
    assert users
    for path in users:
        assert not used_for_more_than_presets(path.read_text()), path
    aside = "from .presets import sized\nclass A:\n    presets: dict = sized()\n    def f(self): return sized()\n"
    assert used_for_more_than_presets(aside) == {"sized"}


@pytest.mark.parametrize("stage", ["pretraining", "distillation", "plus"])
def test_old_artifacts_are_dropped_when_anything_that_made_them_changes(stage: str) -> None:
    module = f"realmbench.realm.{stage}"
    sources = importlib.import_module(module).SOURCES
    assert module in sources
    assert not uncovered(module, sources)
    assert uncovered(module, [part for part in sources if part != "realmbench.realm.mamba2"])  # the check can fail

"""Artifacts: built once, found again, never half there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from realmbench.artifact import Artifact, ArtifactStore, Trained, load_arrays, save_arrays
from realmbench.errors import RealmbenchError
from realmbench.files import write_whole


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, "code", {"python": "3"})


def build(store: ArtifactStore, session_maker: Any, calls: list[int], seed: int = 0, **config: Any) -> Any:
    def work() -> Trained:
        calls.append(1)
        return Trained({"w": np.full(3, float(len(calls)))}, 3, [{"update": 0.0, "score": 1.0}])

    return store.get_or_build("kind", config, [session_maker()], seed, "cpu", work)


def test_built_once_and_found_again(store: ArtifactStore, session_maker: Any) -> None:
    calls: list[int] = []
    first, second = build(store, session_maker, calls, a=1), build(store, session_maker, calls, a=1)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.arrays["w"], second.arrays["w"])
    assert second.record == first.record
    assert store.record_of(first.hash) == first.record
    assert first.record.sessions == ("s",)


def test_configuration_seed_and_code_are_part_of_the_address(
    store: ArtifactStore, session_maker: Any, tmp_path: Path
) -> None:
    calls: list[int] = []
    hashes = {
        build(store, session_maker, calls, a=1).hash,
        build(store, session_maker, calls, a=2).hash,
        build(store, session_maker, calls, seed=1, a=1).hash,
        build(ArtifactStore(tmp_path, "other code", {}), session_maker, calls, a=1).hash,
    }
    assert len(hashes) == len(calls) == 4


def test_stage_that_names_its_sources_is_shared_by_decoders_of_other_code(
    store: ArtifactStore, session_maker: Any
) -> None:
    other = ArtifactStore(store.folder, "other code", {})

    def hashes(*sources: str) -> set[str]:
        return {each.key("kind", {}, [session_maker().key], 0, sources) for each in (store, other)}

    assert len(hashes()) == 2
    assert len(hashes("realmbench.artifact")) == 1
    assert hashes("realmbench.artifact") != hashes("realmbench.steady")


def test_given_weights_must_be_those_of_the_record(store: ArtifactStore, session_maker: Any, tmp_path: Path) -> None:
    built = build(store, session_maker, [])
    elsewhere = ArtifactStore(tmp_path / "elsewhere", "code", {})
    with pytest.raises(RealmbenchError, match="other weights"):
        elsewhere.give(Artifact({"w": built.arrays["w"] + 1e-6}, built.record))
    elsewhere.give(built)
    np.testing.assert_array_equal(build(elsewhere, session_maker, []).arrays["w"], built.arrays["w"])


def test_failed_build_leaves_nothing(store: ArtifactStore, session_maker: Any) -> None:
    def fails() -> Trained:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.get_or_build("kind", {}, [session_maker()], 0, "cpu", fails)
    # The lock that kept others waiting may stay; it is empty.
    assert [path for path in store.folder.iterdir() if path.suffix != ".lock"] == []


def test_arrays_without_a_record_are_built_again(store: ArtifactStore, session_maker: Any) -> None:
    """A kill between the two files: the record, written last, is missing."""
    calls: list[int] = []
    build(store, session_maker, calls)
    next(store.folder.glob("*.json")).unlink()
    build(store, session_maker, calls)
    assert len(calls) == 2


def test_damage_says_what_to_delete(store: ArtifactStore, session_maker: Any) -> None:
    artifact = build(store, session_maker, [])
    next(store.folder.glob("*.safetensors")).write_bytes(b"broken")
    with pytest.raises(RealmbenchError, match="delete it and run again"):
        build(store, session_maker, [])
    next(store.folder.glob("*.json")).write_text("{}")
    with pytest.raises(RealmbenchError, match="delete it and run again"):
        store.record_of(artifact.hash)
    with pytest.raises(RealmbenchError, match="is not in"):
        store.record_of("0000")


def test_arrays_and_metadata_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.arange(3)}
    path = save_arrays(tmp_path / "x.safetensors", arrays, {"name": "µV", "list": [1, 2]})
    loaded, metadata = load_arrays(path)
    assert metadata == {"name": "µV", "list": [1, 2]}
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_interrupted_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def dies(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, dies)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_given_weights_do_not_give_way_to_others_that_were_made_in_the_same_way(
    store: ArtifactStore, session_maker: Any, tmp_path: Path
) -> None:
    """Another machine's rounding: the same address, other weights. Neither is used in silence."""
    own = build(store, session_maker, [])
    theirs = build(ArtifactStore(tmp_path / "theirs", "code", {}), session_maker, [0])
    assert theirs.hash == own.hash
    with pytest.raises(RealmbenchError, match="holds another kind that was made in the same way, on cpu"):
        store.give(theirs)
    child = Artifact(theirs.arrays, theirs.record.model_copy(update={"hash": "child", "kind": "next"}))
    with pytest.raises(RealmbenchError, match="holds another kind"):
        store.give(child, [theirs.record])
    store.give(own)
    assert store.record_of(own.hash) == own.record


def test_store_that_expects_builds_nothing(store: ArtifactStore, session_maker: Any) -> None:
    """Whether the same would be made is told by the address; arrays are not needed for it."""
    record = build(store, session_maker, []).record
    for code, seed, same in (("code", 0, True), ("other code", 0, False), ("code", 1, False)):
        asked = ArtifactStore(store.folder / "elsewhere", code, {})
        asked.expect([record])
        if same:
            assert build(asked, session_maker, [], seed) == Artifact({}, record)
        else:
            with pytest.raises(RealmbenchError, match="the kind that would be made here is another"):
                build(asked, session_maker, [], seed)
    assert not (store.folder / "elsewhere").exists()


def test_full_disk_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(RealmbenchError, match=r"cannot write .*: I/O error: No space left"):
        save_arrays(tmp_path / "x.safetensors", {"a": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    """The library writes for the owner alone; a checkpoint is handed over by its path."""
    mask = os.umask(0o022)
    try:
        assert save_arrays(tmp_path / "x.safetensors", {"a": np.zeros(3)}).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)

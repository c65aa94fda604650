"""What the tests of REALM's stages share: a store of its own, and two sessions to pretrain on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realmbench.artifact import ArtifactStore
from realmbench.decoder import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


@pytest.fixture
def sessions(session_maker: Any) -> list[Any]:
    return [session_maker(name=f"p{index}", seed=index + 1) for index in range(2)]

"""What the tests of REALM's stages share: a store of its own, and two sessions to pretrain on."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def sessions(session_maker: Any) -> list[Any]:
    return [session_maker(name=f"p{index}", seed=index + 1) for index in range(2)]

"""Named streams and stable hashes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from realmbench.seeds import stable_hash, stream, stream_seed


def test_hash_does_not_depend_on_order_or_process() -> None:
    assert stable_hash({"a": 1, "b": [2.5, None]}) == stable_hash({"b": [2.5, None], "a": 1})
    program = "from realmbench.seeds import stable_hash; print(stable_hash({'b': [2.5, None], 'a': 1}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == stable_hash({"a": 1, "b": [2.5, None]})


def test_streams_are_named_and_independent() -> None:
    draws = [stream(0, *names).standard_normal(1000) for names in (("a",), ("b",), ("a", 1))]
    np.testing.assert_array_equal(draws[0], stream(0, "a").standard_normal(1000))
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.1
    assert stream_seed(0, "a") != stream_seed(1, "a")
    assert 0 <= stream_seed(0, "a") < 2**63

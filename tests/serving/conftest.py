"""Vectors that several tests of the index search; `index_cases.py` has what else they share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def vectors():
    """500 random items of width 12."""
    return np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)


@pytest.fixture(scope="session")
def queries():
    """20 random users of width 12."""
    return np.random.default_rng(1).standard_normal((20, 12)).astype(np.float32)

"""The fixtures of tests/, for the experiments' tests, and the experiments' methods beside the product's.

The tests have a process of their own: those of tests/ speak of the product's methods alone.
"""

from pathlib import Path

import pytest

import experiments.methods  # noqa: F401  (before the fixtures, which are of all methods that are known)
from tests.conftest import *  # noqa: F403
from tests.methods import SMALL

SMALL |= {
    "CDCGDA": {"PROMPT_DEPTH": 2},
    "CDCPromptSRC": {
        "PROMPT_DEPTH_VISION": 2,
        "PROMPT_DEPTH_TEXT": 2,
        "GPA_MEAN": 2,
        "N_TEMPLATES": 2,
    },
    "CDCTCP": {"LAYER": 2, "N_TEMPLATES": 2},
}


def pytest_collection_finish(session):
    if not all(item.path.is_relative_to(Path(__file__).parent) for item in session.items):
        raise pytest.UsageError(
            "run the tests of experiments alone: bash scripts/test.sh experiments"
        )

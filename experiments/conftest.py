"""The fixtures of tests/, for the experiments' tests."""

from tests.conftest import *  # noqa: F403

"""The fixtures of tests/trainers/, for the methods' tests."""

from tests.trainers.conftest import *  # noqa: F403

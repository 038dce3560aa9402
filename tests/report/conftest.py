"""The fixtures of the tests of results/, whose runs a report is of, too."""

from tests.results.conftest import *  # noqa: F403

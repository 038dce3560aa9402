"""A data folder in which the embedded sets lie; each is drawn once for all tests."""
import pytest


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")

"""Data folders in which a data set lies in miniature."""

import pytest

from tests.datasets.miniatures import MINIATURES


@pytest.fixture
def root_of(drawn_root, tmp_path_factory):
    """``root_of(name)``: a data folder in which that data set lies; made once."""

    def make(name):
        if name.startswith("OpenMoji"):
            return drawn_root
        root = tmp_path_factory.getbasetemp() / name
        if not root.exists():
            MINIATURES[name](root)
        return root

    return make

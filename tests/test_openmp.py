"""What OpenMP is told is told before torch loads it, wherever training may begin."""
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize("module", ["train", "run", "sweeps.worker"])
@pytest.mark.parametrize("own", [None, "77"])
def test_openmp_is_told_before_torch_loads_it_and_the_users_own_choice_stays(module, own):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **({"GOMP_SPINCOUNT": own} if own else {})}
    done = subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{own or 3000}'" in done.stderr

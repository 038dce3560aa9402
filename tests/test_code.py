"""The code as text: what ruff.toml and mypy.ini ask for."""
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_ruff_has_nothing_to_say():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."], cwd=REPOSITORY, text=True,
                           capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_mypy_has_nothing_to_say():
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPOSITORY, text=True, capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr

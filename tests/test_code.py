"""The code as text: what ruff.toml and mypy.ini ask for."""
import re
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


def test_no_warning_of_what_the_clip_package_imports():
    """Whoever imports it before ``trainers.prompting`` has would show its users that ``pkg_resources`` is deprecated."""
    product = [path for path in REPOSITORY.glob("[a-z]*/**/*.py") if path.relative_to(REPOSITORY).parts[0] not in ("tests", "tools", "build")]
    importers = {path.relative_to(REPOSITORY).parent.as_posix() for path in (*product, *REPOSITORY.glob("*.py"))
                 if re.search(r"^(import|from) clip\b", path.read_text(encoding="utf-8"), re.MULTILINE)}
    assert importers == {"trainers/prompting"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import trainers.prompting.backbone"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

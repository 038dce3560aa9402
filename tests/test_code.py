"""What is imported with what; style, types and layers are checked by scripts/check.sh."""

import re

import pytest

from tests.conftest import REPOSITORY, python


def test_no_warning_of_what_the_clip_package_imports():
    """A module that imports it before ``trainers.prompting`` does would show users that ``pkg_resources`` is deprecated."""
    product = [
        path
        for path in REPOSITORY.glob("[a-z]*/**/*.py")
        if path.relative_to(REPOSITORY).parts[0] not in ("tests", "tools", "benchmarks", "build")
    ]
    importers = {
        path.relative_to(REPOSITORY).parent.as_posix()
        for path in (*product, *REPOSITORY.glob("*.py"))
        if re.search(r"^(import|from) clip\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importers == {"trainers/prompting"}
    done = python("-W", "error", "-c", "import trainers.prompting.backbone")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("installed_as", ["trainers", "cdc_trainers"])
def test_what_commands_use_of_the_trainers_needs_no_torch(installed_as):
    names = [path.stem for path in (REPOSITORY / "trainers/common").glob("*.py")]
    code = f"import sys, {', '.join(f'{installed_as}.common.{name}' for name in names)}; sys.exit('torch' in sys.modules or 'dassl' in sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr

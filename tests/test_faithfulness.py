"""docs/faithfulness.md names tests that exist, and every trainer."""

import re

from dassl.engine import TRAINER_REGISTRY

from tests.conftest import REPOSITORY
from trainers.base import PromptTrainer

REPORT = (REPOSITORY / "docs" / "faithfulness.md").read_text()


def test_every_test_it_names_exists():
    file, named = None, re.findall(r"`([\w/.…]+)::(test_\w+)`", REPORT)
    assert len(named) > 30
    for place, test in named:
        file = file if place == "…" else place  # … is the file named before
        path = (
            REPOSITORY / file
            if file.startswith("tests/")
            else REPOSITORY / "tests" / "trainers" / file
        )
        assert f"def {test}(" in path.read_text(), f"{file}::{test}"


def test_every_trainer_has_its_section():
    headings = (
        " ".join(re.findall(r"^## (.*)$", REPORT, flags=re.MULTILINE)).replace(",", " ").split()
    )
    ours = [
        name
        for name in TRAINER_REGISTRY.registered_names()
        if issubclass(TRAINER_REGISTRY.get(name), PromptTrainer)
    ]
    assert set(ours) <= set(headings)

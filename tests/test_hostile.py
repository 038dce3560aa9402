"""Hundreds of hostile cases, each in a process of its own: none falls, see ``tests/hostile``."""

import random

import pytest

import demo_app
from tests.hostile import fallen, pictures, run_files, words
from tests.runs import base_arguments
from trainers import PromptedClassifier
from trainers.evaluation.doubts import Judge

EACH = 48  # cases of a kind that are tried, drawn from all of its table: of eleven kinds over 500

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a case works, beside somebody's files."""
    for name in ("kept", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "kept/notes.txt").write_text("somebody's")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def kinds(place, trained, loaded, data_root, small_clip_file):
    """Kind → a function that makes its table of cases."""
    picture = f"{data_root}/dtd/images/woven/00.png"

    def cdc():
        return trained("CDC")

    def client():
        classifier = PromptedClassifier.load(cdc())
        examples = demo_app.find_examples(cdc(), classifier.record, data_root)
        return demo_app.make_app(
            demo_app.Demo(classifier, Judge(str(cdc())), examples)
        ).test_client()

    def arguments(folder):
        return base_arguments("CDC", data_root, small_clip_file, folder)

    return {
        "pictures": lambda: pictures.cases(place),
        "given": lambda: pictures.given_cases(loaded("CoOp")),
        "checkpoints": lambda: run_files.checkpoint_cases(cdc(), place, picture, arguments),
        "records": lambda: run_files.record_cases(cdc(), place, picture),
        "answers": lambda: run_files.answer_cases(cdc(), place, picture),
        "labels": lambda: words.label_cases(place),
        "classes": lambda: words.class_cases(loaded("CoOp")),
        "settings": words.setting_cases,
        "commands": lambda: words.command_cases(cdc(), place, picture),
        "names": lambda: words.name_cases(trained("CoOp"), place, picture),
        "page": lambda: words.page_cases(client()),
    }


KINDS = (
    "pictures given checkpoints records answers labels classes settings commands names page".split()
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_case_falls(kinds, place, kind):
    cases = kinds[kind]()
    some = random.Random(0).sample([*cases], EACH)
    assert fallen({name: cases[name] for name in some}, place.parent / "kept") == {}

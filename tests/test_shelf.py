"""Runs of former versions, and of this one while it was new, load and score as they did.

tests/golden/shelf/<commit>/<trainer> is what ``train.py --trainer <trainer> --backbone tiny --root
<the miniature of conftest.make_textures>`` of that version left, on tests/small.yaml with
INPUT.SIZE "(64, 64)", two epochs and, of CDC, prompts of texts at one layer. Nothing there is ever
changed; a version that writes other files gets a folder of its own.
"""

import pytest

from tests.conftest import GOLDEN
from tests.runs import REPOSITORY, record_of
from tests.same_run import kept_answers
from trainers import PromptedClassifier

SHELF = REPOSITORY / "tests/golden/shelf"
RUNS = sorted(str(path.parent.relative_to(SHELF)) for path in SHELF.glob("*/*/results.json"))


@pytest.mark.parametrize("run", RUNS)
def test_a_run_of_the_shelf_scores_as_it_did(run, data_root):
    record = record_of(SHELF / run)
    known = kept_answers(SHELF / run, "test")
    pictures = [f"{data_root}/dtd/images/{name}" for name in known["image"]]
    answers = PromptedClassifier.load(SHELF / run).predict(pictures)
    assert answers.classnames == record["classnames"]
    rows = range(len(pictures))
    for top, probability in zip(known["top"].T, known["top_probability"].T):
        assert answers.probabilities[rows, top] == pytest.approx(probability, rel=1e-3, abs=1e-4)
    doubts = {"max_probability": answers.uncertainty, "conflict": answers.conflict}
    if answers.votes is not None:  # (N, M, K)
        doubts["vote_probability"] = answers.votes.max(axis=-1).T
    for name in doubts.keys() & known.keys():
        assert doubts[name] == pytest.approx(known[name], rel=1e-3, abs=1e-4), name
    if "vacuity" in known:  # of easy pictures far below what the lines above would tell
        assert answers.vacuity == pytest.approx(known["vacuity"], rel=0.05, abs=1e-9)


# ---- figures ----


FIGURES = GOLDEN["figures"]


@pytest.mark.parametrize("name", FIGURES["figures"])
def test_a_run_measures_and_records_what_it_did(trained, name):
    _, folder = trained(name)
    record = record_of(folder)
    measured = record["metrics"]["test"]
    metrics = sorted(FIGURES["metrics"] + FIGURES["further_metrics"].get(name, []))
    assert sorted(record) == FIGURES["record"] and sorted(measured) == metrics
    assert {key: measured[key] for key in FIGURES["figures"][name]} == pytest.approx(
        FIGURES["figures"][name], rel=1e-3
    )

"""The list of wrong labels of a run on one's own pictures, by answers that have not seen them."""

import csv

import numpy
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_label_issues as find_multi_label_issues
from PIL import Image

import train
from tests.labelling.cases import over_tasks, write
from tests.runs import record_of
from trainers.common.record_file import read_answers

pytestmark = pytest.mark.usefixtures("no_figures")
COLOURS = {"red square": (200, 30, 30), "blue square": (30, 30, 200)}
WRONG = "red square/07.png"


@pytest.fixture
def colours(tmp_path):
    """The file of fifty pictures of each of two colours, one of which has the other's label, and is twice as
    wide as high."""
    generator = numpy.random.default_rng(0)
    rows = []
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir(parents=True)
        for index in range(50):
            path = f"{name}/{index:02d}.png"
            shown = COLOURS["blue square"] if path == WRONG else colour
            width = 64 if path == WRONG else 32
            pixels = generator.normal(0, 30, (32, width, 3)) + shown
            picture = Image.fromarray(numpy.clip(pixels, 0, 255).astype("uint8"))
            picture.save(tmp_path / path)
            rows.append((path, name))
    return write(tmp_path / "labels.csv", rows)


@over_tasks
def test_a_training_picture_whose_label_is_wrong_is_listed(task, colours, tmp_path):
    """By the report, and by cleanlab on the answers that are kept, as the docs have it."""
    run = tmp_path / "run"
    words = ["--backbone", "tiny", task.flag, "--output-dir", str(run)]
    assert train.main(["--images", str(colours), *words]) == 0
    with open(run / "report_wrong_labels.csv", encoding="utf-8-sig") as file:
        first = next(csv.DictReader(file))
    assert WRONG.endswith(first["image"])
    assert first["split"] == "test", "all are tested in folds"
    assert (first["label"], first["answer"]) == ("red square", "blue square")
    with open(run / "report_least_certain.csv", encoding="utf-8-sig") as file:
        cut = {row["image"]: float(row["unseen"]) for row in csv.DictReader(file)}
    assert cut.pop(first["image"]) == float(first["unseen"]) == 0.5
    assert {*cut.values()} == {0.0}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "cropped to its middle: 50&nbsp;% of it was not seen" in page

    answers = read_answers(run, "test", record_of(run))
    assert answers["probability"].shape == (100, 2)
    ranked = {"pred_probs": answers["probability"], "return_indices_ranked_by": "self_confidence"}
    if task.task.multi_label:
        sets = [numpy.flatnonzero(own).tolist() for own in answers["truth"]]
        found = find_multi_label_issues(sets, n_jobs=1, **ranked)
    else:
        found = find_label_issues(answers["label"], n_jobs=1, **ranked)
    assert WRONG.endswith(answers["image"][found[0]])

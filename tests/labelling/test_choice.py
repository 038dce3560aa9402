"""Which trainer a run on one's own pictures takes: prompts where there are minutes for them and they
win; and what its folds say of the training pictures."""

import csv
import json

import numpy
import pytest
from PIL import Image

import train
from labelling import PromptedClassifier, choice
from labelling.folders.own_images import list_images
from labelling.request import OwnRun
from tests.runs import contents_of, record_of, refuses
from tests.same_run import kept_answers
from trainers.learners.candidates import TAKEN

SHORT = {"OPTIM.MAX_EPOCH": 1, "OPTIM.LEAST_STEPS": 2}
OF_PROMPTS = {**SHORT, "TRAINER.CDCGDA.N_TEMPLATES": 2}
pytestmark = pytest.mark.usefixtures("no_figures")
COLOURS = {"red square": (200, 30, 30), "blue square": (30, 30, 200)}


@pytest.fixture
def colours(tmp_path):
    """Fifty pictures of each of two colours."""
    generator = numpy.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / f"colours/{name}").mkdir(parents=True)
        for index in range(50):
            pixels = generator.normal(0, 30, (32, 32, 3)) + colour
            picture = Image.fromarray(numpy.clip(pixels, 0, 255).astype("uint8"))
            picture.save(f"{tmp_path}/colours/{name}/{index:02d}.png")
    return tmp_path / "colours"


def test_a_training_picture_whose_label_is_wrong_is_listed(colours, tmp_path, monkeypatch):
    """As the fit in folds has it, in which it was held out once."""
    monkeypatch.chdir(tmp_path)
    wrong = next(item for item in list_images(str(colours))[0] if item.classname == "red square")
    Image.open(colours / "blue square/00.png").rotate(90).save(wrong.impath)
    assert train.main(["--images", str(colours), "--backbone", "tiny"]) == 0
    record = record_of("output/colours/seed1")
    assert "candidates" not in record
    with open("output/colours/seed1/report_wrong_labels.csv", encoding="utf-8-sig") as file:
        first = next(csv.DictReader(file))
    assert wrong.impath.endswith(first["image"])
    assert first["split"] == "train"
    assert (first["label"], first["answer"]) == ("red square", "blue square")


def compare(colours, tmp_path, minutes):
    place = f"{tmp_path}/run"
    run = OwnRun(str(colours), "", "tiny", "", place, settings=OF_PROMPTS, minutes=minutes)
    return choice.choose_trainer(run)


def test_prompts_that_would_take_longer_are_not_trained_and_what_they_are_compared_with_is(
    colours, tmp_path
):
    """The validation pictures that are right in the comparison are those of the run, under its settings."""
    found = compare(colours, tmp_path, minutes=1e-3)
    assert found.trainer == TAKEN
    assert found.rows[-1]["accuracy"] is None
    assert "CDCGDA, not trained: it would take" in str(found)
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]
    run = PromptedClassifier.fit(colours, backbone="tiny", folder=tmp_path / "run", settings=SHORT)
    answers = kept_answers(tmp_path / "run", "val")
    right = answers["top"][:, 0] == answers["label"]
    assert run.record["trainer"] == found.trainer
    assert found.rows[0]["accuracy"] == 100 * right.mean()
    assert found.rows[0]["images"] == len(right)


def test_prompts_that_win_by_more_than_the_margin_are_the_run(colours, tmp_path, monkeypatch):
    """On the same validation pictures, of which all are right."""
    monkeypatch.setattr(choice, "accuracy", lambda *_: 97.9)
    found = compare(colours, tmp_path, minutes=60)
    assert found.trainer == "CDCGDA"
    assert (found.rows[-1]["accuracy"], found.rows[-1]["images"]) == (100, 20)
    words = ["--images", str(colours), "--backbone", "tiny", "--output-dir", f"{tmp_path}/run"]
    options = [str(word) for pair in OF_PROMPTS.items() for word in pair]
    assert train.main([*words, *options]) == 0
    record = record_of(tmp_path / "run")
    assert [row["trainer"] for row in record["candidates"]] == [TAKEN, "CDCGDA"]
    assert "CDCGDA was chosen" in json.dumps(record["notes"])
    assert "Why CDCGDA on colours" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_prompts_that_win_by_no_more_than_the_margin_are_kept_beside_the_run(
    colours, tmp_path, monkeypatch
):
    """Where the command was killed after that, they are not trained again; what a kill in the first
    checkpoint has left is no obstacle."""
    place = tmp_path / "run/CDCGDA/prompt_learner"
    place.mkdir(parents=True)
    (place / "model.pth.tar-1.host-1.unfinished").write_bytes(b"")
    monkeypatch.setattr(choice, "accuracy", lambda *_: 98.0)
    found = compare(colours, tmp_path, minutes=60)
    assert found.trainer == TAKEN
    assert record_of(tmp_path / "run/CDCGDA")["trainer"] == "CDCGDA"
    again = compare(colours, tmp_path, minutes=60)
    assert again.rows[-1]["seconds"] == found.rows[-1]["seconds"]


@pytest.mark.parametrize(
    "name, line",
    [
        ("CDCGDA/notes.txt", "CDCGDA holds notes.txt, which was not written by this command"),
        ("CDCGDA/results.json", "results.json exists already, and was not written by this command"),
        ("CDCGDA/prompt_learner", "CDCGDA/prompt_learner is no folder: move it away"),
        ("metrics.jsonl", "metrics.jsonl exists already, and was not written by this command"),
        ("predictions-val.npz", "was not written by this command"),
        ("prompt_learner/model.pth.tar-1", "prompt_learner .*was not written by this command"),
    ],
)
def test_prompts_replace_nobodys_file(tmp_path, name, line):
    """What is in their folder, and in the run's, whose place they may take, is looked at before they are trained."""
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("somebody's")
    run = OwnRun(str(tmp_path), backbone="tiny", folder=f"{tmp_path}/run", minutes=60)
    with refuses(f"the output folder .*{line}"):
        choice.try_prompts(run, choice.Choice(TAKEN, "which is fitted"), 60, 0.0)
    assert contents_of(tmp_path) == {path: b"somebody's"}

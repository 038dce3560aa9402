"""The labelling loop: predictions go out as Label Studio's tasks, its export and tables come in."""

import csv
import json
from pathlib import Path

import pytest

import predict
from labelling import PromptedClassifier
from labelling.commands import train as cdc_train
from tests.labelling.tables import labelled_in, read_labels
from tests.runs import call, make_pictures, record_of, refuses

NAMES = ("Ä ant", "bee, wild")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Class folders in a folder whose name an address must quote; the working folder is elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return make_pictures(tmp_path / "my pictures & more", names=NAMES)


def annotated(task, *names):
    """A task as Label Studio exports it after a person has chosen."""
    choice = {"type": "choices", "value": {"choices": [*names]}}
    return {"data": task["data"], "annotations": [{"result": [choice]}]}


def test_what_was_predicted_and_confirmed_is_what_is_trained_on(mine, trained):
    """Every image keeps its path through both programs, in whatever order."""
    tasks = mine / "tasks.json"
    run = trained("CDC")
    words = ["--run", run, "--label-studio", tasks, "--least-certain-first", mine]
    assert call(predict.main, *words) == 0
    made = json.loads(tasks.read_text())
    classifier = PromptedClassifier.load(run)
    answers = classifier.predict(sorted(map(str, mine.rglob("*.bmp"))))
    scores = []
    export = []
    for task in made:
        (guess,) = task["predictions"]
        scores.append(guess["score"])
        export.append(annotated(task, *guess["result"][0]["value"]["choices"]))
        assert guess["model_version"] == f"CDC {record_of(run)['prompts_hash'][:8]}"
    assert scores == sorted(scores)
    (mine / "export.json").write_text(json.dumps(export))
    images, labels = labelled_in(str(mine / "export.json"))
    assert dict(zip(images, labels)) == dict(zip(answers.images, answers.labels))
    assert call(predict.main, *words) == 0  # over what it has written itself


def test_a_table_of_labels_is_trained_on(mine, small_clip_file):
    images = sorted(mine.rglob("*.bmp"))
    names = [path.parent.name for path in images]
    shown = [path.relative_to(mine).as_posix() for path in images]
    file = mine / "labels.csv"
    with open(file, "w", newline="", encoding="utf-8-sig") as table:
        csv.writer(table).writerows([("image", "label"), *zip(shown, names), (shown[0], "")])
    assert labelled_in(str(file)) == ([*map(str, images)], names)
    words = "--trainer", "ZeroshotCLIP", "--backbone", small_clip_file
    settings = "--settings", "INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0
    assert call(cdc_train.main, file, *words, *settings) == 0
    assert sorted(PromptedClassifier.load("output/labels/ZeroshotCLIP/seed1").classnames) == sorted(
        NAMES
    )
    assert [path.name for path in Path.cwd().iterdir()] == ["output"], "no picture is copied"


def test_an_export_names_what_was_labelled(mine):
    images = [mine / name / "0.bmp" for name in sorted(NAMES)]
    tasks = [annotated({"data": {"image": str(path)}}, path.parent.name) for path in images]
    skipped = annotated(tasks[0], "cat")
    skipped["annotations"][0]["was_cancelled"] = True
    file = mine / "labels.json"
    file.write_text(json.dumps([*tasks, skipped, {**skipped, "annotations": []}]))
    assert labelled_in(str(file)) == ([*map(str, images)], sorted(NAMES))


def test_uploaded_images_are_found_by_the_names_that_they_had(mine):
    image = mine / NAMES[0] / "0.bmp"
    (mine / "a-cat.bmp").write_bytes(image.read_bytes())
    task = {"data": {"image": "/data/upload/1/1f3a-a-cat.bmp"}}
    (mine / "export.json").write_text(json.dumps([annotated(task, "cat")]))
    assert labelled_in(str(mine / "export.json")) == ([str(mine / "a-cat.bmp")], ["cat"])


def test_an_image_has_the_label_of_its_newest_annotation_that_was_not_cancelled(mine):
    """Label Studio lists annotations in the order in which they were made."""
    tasks = []
    for number, names in enumerate((["ant", "bee"], ["bee", "ant", "cat"], ["ant", "bee", None])):
        path = mine / NAMES[0] / f"{number}.bmp"
        task = {"data": {"image": str(path)}, "annotations": []}
        for name in names:
            (made,) = annotated(task, name or "wasp")["annotations"]
            task["annotations"].append({**made, "was_cancelled": name is None})
        tasks.append(task)
    (mine / "export.json").write_text(json.dumps(tasks))
    assert read_labels(str(mine / "export.json")).labels == ["bee", "cat", "bee"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("image,name\na.png,cat\n", "it has no column label"),
        ("image,label\n", "has no labelled image"),
        ("image,label\nnone.png,cat\n", r"line 2, names 'none.png' \(cat\), and there is no file"),
        ('[{"image": "a.png", "choice": "cat"}]', "Label Studio's JSON export"),
        ("[", "Label Studio's JSON export"),
        (
            json.dumps([{"id": 7, **annotated({"data": {"image": "a.png"}}, "cat", "dog")}]),
            "task 7 has 2 labels: keep one, or say --multi-label",
        ),
    ],
)
def test_a_file_without_labels_is_refused_with_the_cause(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    path.write_text(content)
    with refuses(message):
        read_labels(str(path))


def test_images_that_label_studio_could_not_show_are_refused_at_once(mine, trained, error_of):
    words = "--run", trained("CDC"), "--label-studio", mine / "tasks/tasks.json"
    line = error_of(predict.main, *map(str, (*words, mine)))
    assert "Label Studio shows what is below one folder" in line
    (mine / "labels.json").write_text("[]")
    words = "--run", trained("CDC"), "--label-studio", mine / "labels.json"
    assert "not written by this command" in error_of(predict.main, *map(str, (*words, mine)))

"""Multi-label pictures: a run is made, goes on where it was killed, labels, and is trained again on
what it has labelled."""

import csv
import json
import os
import re

import numpy
import pytest
from PIL import Image

import predict
import train
from labelling import PromptedClassifier
from labelling.checkout.offers import multi_label_offer
from labelling.commands import train as cdc_train
from labelling.serve.demo import Demo, find_examples
from labelling.serve.page import make_app
from labelling.table import read_table
from report.__main__ import main as report
from results.table import main as table_of
from tests.chromium import Page
from tests.runs import call, record_of, refuses

NAMES = ["blue", "green", "red"]
PICTURES = 48


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Noise on which up to three colours lie, and a table of them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = numpy.random.default_rng(0)
    lines = ["image,label"]
    for number in range(PICTURES):
        pixels = rng.integers(0, 256, (32, 32, 3))
        own = [name for place, name in enumerate(NAMES) if number >> place & 1]
        for name in own:
            pixels[:, :, 2 - NAMES.index(name)] = rng.integers(200, 256, (32, 32))
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(own)}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def words(small_clip_file):
    settings = "INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0
    return ["--backbone", small_clip_file, "--settings", *settings]


@pytest.fixture(scope="module")
def run(pictures, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert call(cdc_train.main, pictures / "labels.csv", "--output-dir", folder, *words) == 0
    return folder


def rows_of(file):
    with open(file, encoding="utf-8-sig", newline="") as table:
        return list(csv.DictReader(table))


def text_of(source):
    """The text of a page."""
    return " ".join(" ".join(Page(source).pieces).split())


def test_a_run_says_that_several_labels_are_meant_and_how_good_it_is(run):
    record = record_of(run)
    assert record["task"] == "multi-label"
    assert record["trainer"] == "BinaryProbe"
    assert "A picture may have several labels, or none" in (run / "log.txt").read_text()
    measured = record["metrics"]["test"]
    assert measured["images"] == PICTURES
    untrained = record_of(run / "ZeroshotCLIP")["metrics"]["test"]
    assert measured["map"] > 85 > untrained["map"]
    assert "micro_f1" not in untrained
    assert [own["positives"] for own in measured["per_label"].values()] == [24, 24, 24]


def test_answers_are_sets_and_each_label_has_a_probability_of_its_own(run, pictures, tmp_path):
    classifier = PromptedClassifier.load(run)
    paths = [str(pictures / f"{number}.png") for number in range(8)]
    answers = classifier.predict(paths)
    assert answers.probabilities.shape == (8, 3)
    assert answers.labels[0] == []
    assert set(answers.labels[7]) == {*NAMES}
    given = answers.probabilities >= answers.thresholds
    assert [set(own) for own in answers.labels] == [
        {name for name, has in zip(NAMES, row) if has} for row in given
    ]
    table = tmp_path / "table.csv"
    assert call(predict.main, "--run", run, "--csv", table, "--probabilities", *paths) == 0
    rows = rows_of(table)
    assert [row["label"] for row in rows] == [";".join(own) for own in answers.labels]
    for place, name in enumerate(NAMES):
        shown = [float(row[f"probability_{name}"]) for row in rows]
        numpy.testing.assert_allclose(shown, answers.probabilities[:, place], rtol=1e-4)
    assert list(answers.to_pandas()["label"]) == [row["label"] for row in rows]


def test_what_was_labelled_and_corrected_is_trained_on_again(run, pictures, words, tmp_path):
    paths = sorted(map(str, pictures.glob("*.png")))
    tasks = pictures / "tasks.json"
    assert call(predict.main, "--run", run, "--label-studio", tasks, *paths) == 0
    export = [
        {"data": task["data"], "annotations": [{"result": task["predictions"][0]["result"]}]}
        for task in json.loads(tasks.read_text())
    ]
    export[0]["annotations"][0]["result"][0]["value"]["choices"] = ["blue"]  # corrected
    (pictures / "export.json").write_text(json.dumps(export))
    table = pictures / "answers.csv"
    assert call(predict.main, "--run", run, "--csv", table, *paths) == 0
    rows = [{**row, "corrected": row["label"] or ";"} for row in rows_of(table)]
    with refuses("holds a run's own answers"):
        read_table(str(table), multi_label=True)
    with open(table, "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows([*rows, {**rows[0], "corrected": ""}])
    for file in ("export.json", "answers.csv"):
        sets = read_table(str(pictures / file), multi_label=True)
        assert sorted(map(os.path.normpath, sets.paths)) == paths
        folder = tmp_path / file
        assert call(cdc_train.main, pictures / file, "--output-dir", folder, *words) == 0
        assert record_of(folder)["metrics"]["test"]["map"] > 85
    first = read_table(str(pictures / "export.json"), multi_label=True).truth[0]
    assert first.tolist() == [True, False, False]


def test_json_parquet_and_lines_say_the_same(run, pictures, tmp_path, capsys):
    paths = [str(pictures / f"{number}.png") for number in range(8)]
    assert call(predict.main, "--run", run, "--json", *paths) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [set(row["labels"]) for row in rows][::7] == [set(), {*NAMES}]
    assert all(0 <= entry["threshold"] <= 1 for row in rows for entry in row["top"])
    assert call(predict.main, "--run", run, *paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [
        row["label"] or "none of them" for row in rows
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "table.parquet"
    assert call(predict.main, "--run", run, "--parquet", table, "--topk", 2, *paths) == 0
    stored = parquet.read_table(table).to_pylist()
    assert [row["label"] for row in stored] == [row["label"] for row in rows]
    assert [row["class_1"] for row in stored] == [row["top"][0]["class"] for row in rows]


def test_python_takes_sets_of_names_and_gives_a_classifier_of_sets(
    pictures, small_clip_file, tmp_path
):
    sets = read_table(str(pictures / "labels.csv"), multi_label=True)
    images = [Image.open(path) for path in sets.paths]
    labels = [{name for name, has in zip(NAMES, own) if has} for own in sets.truth]
    classifier = PromptedClassifier.fit(
        images,
        labels,
        backbone=small_clip_file,
        folder=tmp_path / "run",
        settings={"INPUT.SIZE": "(32, 32)"},
    )
    measured = classifier.evaluate(pictures / "labels.csv")
    assert measured.mean_average_precision > 0.9
    assert measured.trained_on == PICTURES


def test_a_refused_fit_leaves_its_place_free(tmp_path):
    images = [numpy.full((8, 8, 3), 60 * number, numpy.uint8) for number in range(4)]
    labels = [{"red", "blue"}, {"red"}, set(), set()]
    with refuses("has 4 pictures or groups of pictures that can be read and look different"):
        PromptedClassifier.fit(images, labels, backbone="tiny", folder=tmp_path / "run")
    assert not (tmp_path / "run-images").exists()


def test_names_alone_rank_and_give_no_label(pictures):
    classifier = PromptedClassifier.zero_shot(NAMES, "tiny", multi_label=True)
    answers = classifier.predict(str(pictures / "7.png"))
    assert answers.labels == [[]]
    assert answers.probabilities.shape == (1, 3)
    assert "rank" in answers.note


@pytest.mark.parametrize(
    "more, message",
    [
        (["--trainer", "CoOp"], "CoOp chooses one class per picture, and can't answer yes or no"),
        (["--refit"], "--refit is of trainers that learn in epochs"),
    ],
)
def test_what_chooses_one_class_is_refused_in_one_line(
    pictures, words, tmp_path, capsys, more, message
):
    command = [pictures / "labels.csv", "--output-dir", tmp_path / "run", *more, *words]
    assert call(cdc_train.main, *command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line


def test_too_few_pictures_are_refused_in_one_line(pictures, words, tmp_path, capsys):
    file = pictures / "few.csv"
    file.write_text("image,label\n1.png,red;blue\n2.png,\n")
    assert call(cdc_train.main, file, "--output-dir", tmp_path / "run", *words) == 2
    assert (
        "has 2 pictures or groups of pictures that can be read and look different"
        in capsys.readouterr().err
    )


def test_too_few_groups_are_refused_in_one_line(pictures, words, tmp_path, capsys):
    file = pictures / "groups.csv"
    lines = [f"{number}.png,{'red;blue' if number % 2 else ''},{number % 3}" for number in range(9)]
    file.write_text("\n".join(["image,label,group", *lines, "9.png,red,0"]) + "\n")
    assert call(cdc_train.main, file, "--output-dir", tmp_path / "run", *words) == 2
    assert (
        "has 3 pictures or groups of pictures that can be read and look different: give at least 5"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "more, message",
    [
        (
            ["--max-error", "0.01"],
            "can't promise that at most 1 % of the labels that are given are wrong",
        ),
        (
            ["--max-error", "best", "--confidence", "0.999999"],
            "can't promise that at most 20 % of the labels",
        ),
        (["--max-missed", "2"], "--max-missed is 2.0"),
        (["--probabilities"], "give --csv FILE"),
    ],
)
def test_what_a_run_cannot_answer_is_one_line(run, pictures, capsys, more, message):
    assert call(predict.main, "--run", run, pictures / "1.png", *more) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line


# ---- the report, the tables and the page ----


def test_the_report_says_how_good_each_label_is(run, pictures, tmp_path):
    file = pictures / "labels.csv"
    page = tmp_path / "report.html"
    assert call(report, run, "--root", file, "--output", page) == 0
    text = text_of(page.read_text())
    record = record_of(run)
    measured = record["metrics"]["test"]
    assert f"{measured['map']:.1f} % mAP by BinaryProbe" in text
    assert f"all {PICTURES} pictures by 5-fold cross-validation" in text
    assert f"{measured['micro_f1']:.1f} % (95 % interval" in text
    rows = sorted(measured["per_label"].items(), key=lambda item: item[1]["average_precision"])
    shown = [
        f"{name} {own['average_precision']:.1f} {own['positives']} {own['f1']:.1f} "
        f"{100 * own['threshold']:.1f} {own['ece']:.1f}"
        for name, own in rows
    ]
    places = [text.index(line) for line in shown]
    assert places == sorted(places)


def test_what_can_be_promised_is_what_is_offered(run, tmp_path, capsys):
    offered = multi_label_offer(str(run)).sentence
    for option in ("--max-error", "--max-missed"):
        found = re.search(rf"{option} ([0-9.]+):", offered)
        share = found[1] if found else 0.2
        code = call(predict.main, "--run", run, option, share, tmp_path / "no.png")
        assert ("can't promise" in capsys.readouterr().err) == (found is None)
        assert code == 2


def test_the_table_of_results_has_such_runs_in_a_table_of_their_own(run, capsys):
    assert call(table_of, run, "--format", "csv") == 0
    measured = record_of(run)["metrics"]["test"]
    lines = capsys.readouterr().out.splitlines()
    head, row = lines[lines.index("multi-label") + 2 :][:2]
    values = dict(zip(head.split(","), row.split(",")))
    for column, name in (("mAP", "map"), ("micro F1", "micro_f1"), ("macro F1", "macro_f1")):
        assert float(values[f"{column}_mean"]) == pytest.approx(measured[name], abs=1e-4)
    assert call(table_of, run, "--metric", "nll") == 2
    assert "none of the runs has the metric 'nll'" in capsys.readouterr().err


def test_the_page_shows_each_labels_bar_with_its_threshold(run, pictures):
    classifier = PromptedClassifier.load(run)
    examples = find_examples(run, classifier.record, str(pictures / "labels.csv"))
    assert len(examples) == 8
    demo = Demo(classifier, examples)
    client = make_app(demo).test_client()
    assert "Class names" not in client.get("/").text
    source = client.post("/", data={"picture": "example-1"}).text
    answers = classifier.predict(examples[0][0])
    text = text_of(source)
    assert ", ".join(answers.labels[0]) in text
    assert "best for its F1; nothing is promised." in text
    for threshold in answers.thresholds:
        assert f'<line x1="{100 * threshold:.2f}%"'[:13] in source
    assert source.count("<line") == len(NAMES)
    assert f"the data set says {examples[0][1]}" in text


def test_train_py_writes_the_report_of_such_a_run(pictures, small_clip_file, tmp_path):
    folder = tmp_path / "run"
    words = "--backbone", small_clip_file, "--output-dir", folder
    settings = "INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0
    assert call(train.main, "--images", pictures / "labels.csv", *words, *settings) == 0
    assert "mAP by BinaryProbe" in text_of((folder / "report.html").read_text())

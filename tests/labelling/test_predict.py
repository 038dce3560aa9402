"""predict.py: what it labels, what it flags, the forms of its answer, and every way to ask for the
wrong thing."""

import io
import json
import shutil

import numpy
import pandas
import pytest

import predict
from labelling import PromptedClassifier
from labelling.rules import CAVEATS
from tests.runs import CLASSES, write_validation


@pytest.fixture
def folder(trained):
    return str(trained("CDC"))


@pytest.fixture
def images(data_root):
    """The folder of the pictures, and the path of the first one of each class."""
    place = f"{data_root}/dtd/images"
    return place, [f"{place}/{name}/00.png" for name in CLASSES]


@pytest.fixture
def said(folder, capsys):
    """Runs predict.py and returns its standard output; the log goes to its ``log``."""

    def start(*arguments, run=folder):
        capsys.readouterr()  # what a training has printed
        assert predict.main(["--run", run, *arguments]) == 0
        out, start.log = capsys.readouterr()
        return out

    return start


@pytest.fixture
def refused(folder, error_of):
    """Runs predict.py and returns its one line of error; fails if it does not refuse, or prints a
    result."""

    def start(*arguments, run=folder):
        line = error_of(predict.main, "--run", run, *arguments)
        assert error_of.printed == ""
        return line

    return start


def test_json_is_what_the_classifier_says(said, folder, images):
    found = json.loads(said("--json", "--topk", "3", *images[1]))
    answers = PromptedClassifier.load(folder).predict(images[1])
    assert [row["image"] for row in found] == images[1]
    assert [row["label"] for row in found] == answers.labels
    for number, row in enumerate(found):
        probability = answers.probabilities[number].tolist()
        order = sorted(zip(CLASSES, probability), key=lambda pair: -pair[1])[:3]
        assert [(one["class"], one["probability"]) for one in row["top"]] == order
        assert row["doubtful"] is None  # nobody has said what would be
        for name in ("uncertainty", "vacuity", "conflict"):
            assert row[name] == float(getattr(answers, name)[number])
        assert len(row["votes"]) == 4
        for place, vote in enumerate(row["votes"]):
            own = answers.votes[number, place]
            assert (vote["voter"], vote["weight"]) == (f"template {place + 1}", 0.25)
            assert vote["top"][0] == {"class": CLASSES[own.argmax()], "probability": own.max()}
            assert vote["vacuity"] == answers.vote_vacuity[number, place]


@pytest.mark.parametrize("trainer", ["TipAdapter", "CDC"])
def test_another_order_of_the_names_changes_no_answer_and_no_promise(
    said, trained, copied, images, trainer
):
    folder = copied(trainer)
    uncertainty = PromptedClassifier.load(folder).predict(images[1]).uncertainty
    write_validation(folder, [*uncertainty, *uncertainty], [0] * 12)
    asked = ("--json", "--topk", "6", "--max-error", "0.5", *images[1])
    first = json.loads(said(*asked, run=str(folder)))
    turned = json.loads(said(*asked, "--classes", *CLASSES[::-1], run=str(folder)))
    assert "The limit that promises at most 50 % errors" in said.log
    assert CAVEATS not in said.log
    assert {row["doubtful"] for row in first} == {False}
    said("--explain", *asked, run=str(folder))
    assert CAVEATS in said.log
    for row, other in zip(first, turned, strict=True):
        assert row["label"] == other["label"]
        assert row["doubtful"] == other["doubtful"]
        assert shares_of(row) == pytest.approx(shares_of(other), abs=1e-5)


def shares_of(row):
    return {one["class"]: one["probability"] for one in row["top"]}


def test_csv_is_the_same_table(said, images, tmp_path):
    path = tmp_path / "new" / "labels.csv"
    assert said("--csv", str(path), *images[1]) == ""
    assert path.read_text(encoding="utf-8").startswith("\ufeffimage,")
    table = pandas.read_csv(path, encoding="utf-8-sig", keep_default_na=False)
    found = json.loads(said("--json", *images[1]))
    for row, other in zip(table.to_dict("records"), found, strict=True):
        expected = {"image": other["image"], "label": other["label"], "doubtful": ""}
        for name in ("uncertainty", "vacuity", "conflict"):
            expected[name] = pytest.approx(other[name], rel=1e-5)
        for place, one in enumerate(other["top"], 1):
            expected[f"class_{place}"] = one["class"]
            expected[f"probability_{place}"] = pytest.approx(one["probability"], rel=1e-5)
        assert list(row) == list(expected)
        assert row == expected


def test_those_to_label_next_come_first_where_that_is_asked_for(said, images):
    usual = json.loads(said("--json", *images[1]))
    found = json.loads(said("--json", "--least-certain-first", *images[1]))
    assert found == sorted(usual, key=lambda row: -row["uncertainty"]) != usual


def test_text_is_a_line_an_image(said, images):
    def cells(*options):
        return said(*options, images[1][0]).splitlines()[0].split("\t")

    image, label, top, uncertainty = cells("--topk", "9")
    assert image == images[1][0]
    assert uncertainty.startswith("uncertainty ")
    assert top.startswith(f"{label} ")
    assert top.count("%") == 6
    _, label, first, verdict = cells("--min-certainty", "1")
    assert (label, first, verdict) == ("?", top[: len(first)], f"{uncertainty}, not sure")
    assert cells("--min-certainty", "0")[3] == f"{uncertainty}, within the limit"


def test_files_folders_patterns_and_a_list(said, images, monkeypatch):
    place, files = images

    def labelled(*paths):
        return [row["image"] for row in json.loads(said("--json", *paths))]

    assert labelled(f"{place}/*/00.png") == sorted(files)
    of_grid = [f"{place}/grid/{index:02d}.png" for index in range(15)]
    assert labelled(files[3], f"{place}/grid") == [files[3], *of_grid]
    assert labelled(f"{place}/gr?d") == of_grid
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{files[5]}\n\n{files[2]}\r\n"))
    assert labelled(files[0], "-") == [files[0], files[5], files[2]]


def test_hidden_files_and_other_files_of_a_folder_are_left_out(said, images, tmp_path):
    for name in ("a.PNG", ".b.png", "c.txt", ".d/e.png", "f/g.jpg", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(images[1][0], tmp_path / name)
    found = [row["image"] for row in json.loads(said("--json", str(tmp_path)))]
    assert found == [str(tmp_path / name) for name in ("[1].png", "a.PNG", "f/g.jpg")]


def test_less_certain_than_asked_for_is_flagged(said, folder, images):
    """As certain as asked for is certain enough."""
    answers = PromptedClassifier.load(folder).predict(images[1])
    most = numpy.sort(answers.uncertainty)[2]
    found = json.loads(said("--json", "--min-certainty", str(1 - float(most)), *images[1]))
    assert [row["doubtful"] for row in found] == (answers.uncertainty > most).tolist()
    for row, label in zip(found, answers.labels, strict=True):
        assert row["label"] == (None if row["doubtful"] else label)


def test_what_is_flagged_follows_from_the_error_that_is_allowed(said, copied, folder, images):
    u = numpy.sort(PromptedClassifier.load(folder).predict(images[1]).uncertainty)
    # as uncertain as the third image: the last one up to which so few answers are wrong
    run = copied("CDC")
    write_validation(run, [u[0]] * 4 + [u[2], u[4], u[4]], [0, 0, 0, 0, 1, 1, 0])
    allowed = "--json --max-error 0.35 --confidence 0.5".split()
    found = json.loads(said(*allowed, *images[1], run=str(run)))
    sure = [row["uncertainty"] for row in found if not row["doubtful"]]
    assert sorted(sure) == u[:3].tolist()
    for line in (
        "on pictures like the run's 7 validation images",
        "gives 5 of these a label.",
        "6 images, 3 of them too uncertain for a label",
    ):
        assert line in said.log


def test_what_is_wrong_with_the_images(refused, images, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no image")
    assert "there is no image to label (they end in .j" in refused(str(tmp_path))
    assert "notes.txt can't be read" in refused(str(tmp_path / "notes.txt"))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "there is no image to label (" in refused("-")


@pytest.mark.parametrize("form", ["csv", "parquet", "label-studio"])
def test_no_form_replaces_somebodys_file(refused, images, tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    theirs = tmp_path / "labels"
    theirs.write_text("mine")
    picture = shutil.copy(images[1][0], tmp_path)
    line = refused(f"--{form}", theirs, picture)
    assert f"--{form} {theirs} exists already, and was not written by this command" in line
    assert theirs.read_text() == "mine"
    assert not (tmp_path / "labels.part").exists()


def test_a_table_is_written_whole_or_not_at_all(refused, images, tmp_path):
    table, broken = tmp_path / "labels.csv", tmp_path / "broken.png"
    older = "\ufeffimage,label,doubtful,uncertainty\n"
    table.write_text(older)
    broken.write_bytes(b"no image")
    assert "broken.png can't be read" in refused("--csv", table, broken)
    assert table.read_text() == older
    assert {*tmp_path.iterdir()} == {table, broken}
    line = refused("--csv", tmp_path, images[1][0])
    assert f"--csv {tmp_path} is no file: move it away" in line

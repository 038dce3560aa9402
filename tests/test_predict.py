"""predict.py: what it labels, what it flags, the forms of its answer, and every way to ask for the wrong thing."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy
import pytest
from PIL import Image

import predict
from tests.runs import REPOSITORY
from trainers import PromptedClassifier

CLASSES = ("banded", "dotted", "striped", "woven", "zigzagged", "grid")
# With its image witness CDC's answers on the miniature have a probability that is 1 in fp32.
OPTIONS = {"CDC": ("TRAINER.CDC.IMAGE_WITNESS", "False"), "CoOp": ()}


@pytest.fixture
def folder(trained):
    return str(trained("CDC", *OPTIONS["CDC"])[1])


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
def refused(folder, capsys):
    """Runs predict.py and returns its one line of error; fails if it does not refuse, or prints a result."""

    def start(*arguments, run=folder):
        capsys.readouterr()  # what a training has printed
        assert predict.main(["--run", run, *arguments]) == 2
        out, err = capsys.readouterr()
        lines = [
            line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")
        ]
        assert out == "" and len(lines) == 1
        return lines[0]

    return start


def test_json_is_what_the_classifier_says(said, folder, images):
    found = json.loads(said("--json", "--topk", "3", *images[1]))
    answers = PromptedClassifier.load(folder).predict(images[1])
    assert [row["image"] for row in found] == images[1] and [
        row["label"] for row in found
    ] == answers.labels
    for number, row in enumerate(found):
        order = sorted(range(6), key=lambda label: -answers.probabilities[number, label])[:3]
        assert row["top"] == [
            {"class": CLASSES[label], "probability": float(answers.probabilities[number, label])}
            for label in order
        ]
        assert row["uncertainty"] == pytest.approx(1 - row["top"][0]["probability"], abs=1e-6)
        assert row["vacuity"] == float(answers.vacuity[number]) and row["conflict"] == float(
            answers.conflict[number]
        )
        assert row["doubtful"] is None  # nobody has said what would be


def test_csv_is_the_same_table(said, images, tmp_path):
    path = tmp_path / "new" / "labels.csv"
    assert said("--csv", str(path), *images[1]) == ""
    table = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    expected = json.loads(said("--json", *images[1]))
    assert list(table[0]) == [
        "image",
        "label",
        "doubtful",
        "uncertainty",
        "vacuity",
        "conflict",
        *(f"{what}_{place}" for place in range(1, 6) for what in ("class", "probability")),
    ]
    for row, other in zip(table, expected, strict=True):
        assert (row["image"], row["label"], row["doubtful"]) == (other["image"], other["label"], "")
        assert [row[f"class_{place}"] for place in range(1, 6)] == [
            pair["class"] for pair in other["top"]
        ]
        assert [float(row[f"probability_{place}"]) for place in range(1, 6)] == [
            pair["probability"] for pair in other["top"]
        ]
        assert float(row["uncertainty"]) == other["uncertainty"]
    assert [path.name for path in path.parent.iterdir()] == ["labels.csv"]


def test_text_is_a_line_an_image(said, images):
    image, label, top, uncertainty = said("--topk", "9", images[1][0]).splitlines()[0].split("\t")
    assert (
        image == images[1][0]
        and top.startswith(f"{label} ")
        and top.count("%") == 6
        and uncertainty.startswith("uncertainty ")
    )


def test_files_folders_patterns_and_a_list(said, images, monkeypatch):
    place, files = images

    def labelled(*paths):
        return [row["image"] for row in json.loads(said("--json", *paths))]

    assert labelled(f"{place}/*/00.png") == sorted(files)
    assert labelled(files[3], f"{place}/grid") == [
        files[3],
        *(f"{place}/grid/{index:02d}.png" for index in range(15)),
    ]
    assert len(labelled(place)) == 90 and labelled(f"{place}/gr?d") == labelled(f"{place}/grid")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{files[5]}\n\n{files[2]}\r\n"))
    assert labelled(files[0], "-") == [files[0], files[5], files[2]]


def test_hidden_files_and_other_files_of_a_folder_are_left_out(said, images, tmp_path):
    for name in ("a.PNG", ".b.png", "c.txt", ".d/e.png", "f/g.jpg", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(images[1][0]).save(tmp_path / name, format="PNG")
    found = [row["image"] for row in json.loads(said("--json", str(tmp_path)))]
    assert found == [str(tmp_path / name) for name in ("[1].png", "a.PNG", "f/g.jpg")]
    assert json.loads(said("--json", str(tmp_path / "[1].png")))[0]["image"] == str(
        tmp_path / "[1].png"
    )


def test_other_classes(said, folder, images):
    found = json.loads(said("--json", *images[1], "--classes", "cat", "dog"))
    assert [row["label"] for row in found] == PromptedClassifier.load(folder).with_classes(
        ["cat", "dog"]
    ).predict(images[1]).labels
    assert all(len(row["top"]) == 2 for row in found)


@pytest.mark.parametrize("name", ["CDC", "CoOp"])
def test_less_certain_than_asked_for_is_flagged(said, trained, images, name):
    folder = str(trained(name, *OPTIONS[name])[1])
    answers = PromptedClassifier.load(folder).predict(images[1])
    certainty = answers.probabilities.max(axis=1)
    wanted = (numpy.sort(certainty)[2] + numpy.sort(certainty)[3]) / 2
    rows = json.loads(said("--json", "--min-certainty", str(wanted), *images[1], run=folder))
    assert [row["doubtful"] for row in rows] == (certainty < wanted).tolist() and sum(
        row["doubtful"] for row in rows
    ) == 3
    assert [row["label"] for row in rows] == [
        None if doubtful else label for doubtful, label in zip(certainty < wanted, answers.labels)
    ]


@pytest.fixture
def validated(trained, tmp_path):
    """A copy of a run, with answers to validation images that are made up: uncertainties, and whether each answer is right."""

    def make(uncertainty, right, name="CDC"):
        folder = tmp_path / "validated"
        shutil.copytree(trained(name, *OPTIONS[name])[1], folder, dirs_exist_ok=True)
        measures = {
            "max_probability": numpy.array(uncertainty, "float32"),
            "vacuity": numpy.zeros(len(right), "float32"),
        }
        top = numpy.array([[1 - r, 2] for r in right])
        numpy.savez(
            folder / "predictions-val.npz", label=numpy.zeros(len(right), int), top=top, **measures
        )
        return str(folder)

    return make


@pytest.mark.parametrize("name", ["CDC", "CoOp"])
def test_what_is_flagged_follows_from_the_error_that_is_allowed(
    said, validated, trained, images, name
):
    uncertainty = numpy.sort(
        PromptedClassifier.load(trained(name, *OPTIONS[name])[1]).predict(images[1]).uncertainty
    )
    # as uncertain as the third image: the last one up to which one in five answers may be wrong
    folder = validated(
        [*[uncertainty[0]] * 4, uncertainty[2], uncertainty[4], uncertainty[4]],
        [1, 1, 1, 1, 0, 0, 1],
        name,
    )
    found = json.loads(said("--json", "--max-error", "0.2", *images[1], run=folder))
    assert (
        sorted(row["uncertainty"] for row in found if not row["doubtful"])
        == uncertainty[:3].tolist()
    )
    assert (
        "Within it: 5 of the run's 7 validation images; wrong among those: 1 of 5 (20 %; 95 % interval 4 to 62 %)"
        in said.log
    )
    assert "6 images, 3 of them doubtful, which have no label" in said.log
    text = said("--max-error", "0.2", *images[1], run=folder)
    assert (
        text.count(", within the limit\n") == text.count("\t?\t") == text.count(", not sure\n") == 3
    )


def test_where_no_answer_is_sure_enough_every_image_is_flagged_and_its_classes_are_still_told(
    said, validated, images
):
    folder = validated([0.1, 0.1, 0.2], [1, 0, 1])
    found = json.loads(said("--json", "--max-error", "0.05", *images[1], run=folder))
    assert [(row["doubtful"], row["label"], len(row["top"])) for row in found] == [
        (True, None, 5)
    ] * 6
    assert (
        "The lowest error is 1 of 3 (33.3 %; 95 % interval 6 to 79 %): --max-error 0.334 allows it."
        in said.log
    )
    found = json.loads(
        said("--json", "--max-error", "0.334", "--topk", "1", *images[1], run=folder)
    )
    assert [row["doubtful"] for row in found] == [
        row["uncertainty"] > 0.2 * 1.0001 for row in found
    ]


def test_a_run_brings_its_answers_to_validation_images_along(said, folder, data_root):
    """On those images, the error among unflagged answers is at most the allowed one."""
    with numpy.load(f"{folder}/predictions-val.npz") as kept:
        paths, labels = [f"{data_root}/dtd/images/{name}" for name in kept["image"]], kept["label"]
        allowed = float((kept["top"][:, 0] != labels).mean())  # what would be wrong without flags
    found = json.loads(said("--json", "--max-error", str(allowed), *paths))
    assert not any(row["doubtful"] for row in found) and len(found) == 18
    assert numpy.mean(
        [row["label"] != CLASSES[label] for row, label in zip(found, labels)]
    ) == pytest.approx(allowed)


def test_what_is_wrong_with_the_images(refused, images, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no image")
    assert f"{tmp_path} holds no images (they end in .jpg, " in refused(str(tmp_path))
    assert "notes.txt can't be read" in refused(str(tmp_path / "notes.txt"))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "the list on standard input is empty" in refused("-")


def test_a_name_that_is_no_text(refused, images, tmp_path):
    try:
        shutil.copy(images[1][0], os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert r"\udcff.png' is not UTF-8: rename it" in refused(str(tmp_path))


def test_what_is_wrong_with_the_run(refused, images):
    assert "nowhere holds no finished run" in refused(images[1][0], run="nowhere")
    assert "MODEL.BACKBONE.NAME is 'nowhere.pt'" in refused(
        images[1][0], "--backbone", "nowhere.pt"
    )
    assert "give a list of at least two names" in refused(images[1][0], "--classes", "cat")


def test_what_is_wrong_with_the_answers_to_validation_images(refused, validated, images):
    folder = validated([0.1, 0.1, 0.2], [1, 0, 1])
    path = f"{folder}/predictions-val.npz"
    with open(path, "r+b") as file:
        file.truncate(100)
    assert f"{path} can't be read (BadZipFile): repeat the run's command" in refused(
        images[1][0], "--max-error", "0.05", run=folder
    )
    os.remove(path)
    assert f"--max-error needs {path}, which a training writes where" in refused(
        images[1][0], "--max-error", "0.05", run=folder
    )


def test_a_table_is_written_whole_or_not_at_all(refused, images, tmp_path):
    table = tmp_path / "labels.csv"
    older = "image,label,doubtful,uncertainty\n"
    table.write_text(older)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "broken.png can't be read" in refused("--csv", str(table), str(tmp_path / "broken.png"))
    assert table.read_text() == older and sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.png",
        "labels.csv",
    ]
    assert f"--csv {tmp_path} is a folder, it must be a file" in refused(
        "--csv", str(tmp_path), images[1][0]
    )
    assert "labels.csv/x.csv' can't be written: " in refused(
        "--csv", str(table / "x.csv"), images[1][0]
    )


def test_one_of_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--run", "x", "y.png", "--csv", "x.csv", "--json"])
    assert stopped.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_the_command_itself(folder, images):
    done = subprocess.run(
        [sys.executable, "predict.py", "--run", folder, "-", "--json"],
        cwd=REPOSITORY,
        input="\n".join(images[1]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        done.returncode == 0
        and len(json.loads(done.stdout)) == 6
        and "\n6 images\n" in done.stderr
        and "No limit is set" in done.stderr
    )

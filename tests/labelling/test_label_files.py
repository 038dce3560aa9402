"""Files that name images and their labels: whatever is in them is read as it is meant or refused in one
line, and images keep the names that they have there."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image

from labelling import PromptedClassifier
from labelling.checkout.image_folder import ImageFolder
from labelling.commands import train as cdc_train
from report.pictures import find_images
from tests.labelling.tables import images_in, labelled_in, read_labels
from tests.runs import contents_of, make_pictures, record_of, refuses
from tests.same_run import kept_answers
from trainers.common.fingerprints import image_name

NAMES = ("Käse", "bee, wild")
CFG = SimpleNamespace(
    DATASET=SimpleNamespace(
        NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all", SKIP_SMALL=False, GROUP_BY="", BOXES=False
    ),
    DATALOADER=SimpleNamespace(BROKEN_IMAGES="skip"),
    INPUT=SimpleNamespace(BACKGROUND="white"),
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two classes of ten pictures each, in the working folder."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pics", names=NAMES)
    return tmp_path


def rows_of(mine, names=str):
    """Pairs of a path, as ``names`` writes it, and a label."""
    paths = sorted(Path("pics").rglob("*.bmp"))
    return [(names(path), path.parent.name) for path in paths]


def table(rows, head=("image", "label"), delimiter=",", end="\n"):
    """A CSV file's text, in which each cell is quoted."""
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in (head, *rows)]
    return "".join(line + end for line in lines)


def named_in(path):
    """Names and labels of the images that a file names."""
    known = read_labels(str(path))
    return [*zip(map(image_name, known.paths), known.labels)]


# ---- what is read ----


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(mine, encoding, delimiter, end):
    content = table(rows_of(mine), ("Image", "label "), delimiter, end)
    Path("labels.csv").write_bytes(content.encode(encoding))
    assert named_in("labels.csv") == rows_of(mine)


@pytest.mark.parametrize(
    "write",
    [str, os.path.abspath, lambda path: f"../{Path.cwd().name}/{path}"],
    ids=["below", "absolute", "by way of the folder above"],
)
def test_an_image_is_called_as_the_file_names_it_and_found_where_it_is(mine, write):
    rows = rows_of(mine, write)
    Path("labels.csv").write_text(table(rows))
    assert named_in("labels.csv") == rows
    for path, (name, _) in zip(read_labels("labels.csv").paths, rows):
        assert os.path.samefile(path, name)
    assert labelled_in("labels.csv")[0] == [os.path.abspath(name) for name, _ in rows]


@pytest.mark.parametrize("place, outside", [("labels.csv", 0), ("tables/labels.csv", 20)])
def test_how_many_images_lie_outside_of_the_files_folder_is_noted(mine, place, outside):
    Path(place).parent.mkdir(exist_ok=True)
    above = "../" if outside else ""
    Path(place).write_text(table(rows_of(mine, lambda path: f"{above}{path}")))
    said = f"{outside} of 20 images lie outside of the folder of {place}"
    assert (said in read_labels(place).notes) is bool(outside)


def test_an_image_that_is_named_twice_counts_once_and_has_one_label(mine):
    rows = rows_of(mine)
    Path("labels.csv").write_text(table([*rows, (f"./{rows[0][0]}", rows[0][1])]))
    assert named_in("labels.csv") == rows
    assert "and taken once: 1 image" in read_labels("labels.csv").notes[0]
    Path("labels.csv").write_text(table([*rows, (rows[0][0], "wasp")]))
    with refuses("labels.csv, line 22: .* is wasp, and Käse in line 2: keep one"):
        read_labels("labels.csv")


# ---- what is refused, in one line ----

ZIP = b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xb7\xa1"
PHOTO = b"\xff\xd8\xff\xe0\x00\x10JFIF"
TASK = {"data": {"image": "pics/a.png"}, "annotations": []}


@pytest.mark.parametrize(
    "content, message",
    [
        (ZIP, r"is no folder.*not UTF-8.*\(unpack an archive first\)"),
        (PHOTO, "is no folder.*not UTF-8"),
        ("image,label\na.png,Käse\n".encode("latin-1"), r"save.*UTF-8.*\(in Excel: CSV UTF-8\)"),
        (b"", "it has no column image"),
        (b"\r", "it has no column image"),
        (b"\x00", "names no labelled images"),
        (b"image,label\r" + b"x" * 140_000 + b",cat\r", "line 2: field larger than field limit"),
        (b"x" * 140_000, "field larger than field limit"),
        (b"image,label\n,cat\n", r"line 2, names no image \(cat\)"),
        (b'image,label\na.png,"c\x07at"\n', "line 2, has the label .*: give a text of one line"),
        (b"image,label\nhttp://[,cat\n", r"line 2, names 'http://\[' \(cat\), and there is no"),
        (b"image,label\n\n\na.png,cat\n", "line 4, names 'a.png'"),
        (b"[5]", "task 1 is of another form"),
        (b"{}", r"it is no list of tasks|names no labelled images \('images'\): give"),
        (b"[" * 100_000, "it is nested too deeply"),
        (
            b'[{"data": {"image": 5}, "annotations": []}]',
            "task 1 has the image 5, which is no path",
        ),
        (b'[{"data": {"a": 1}, "annotations": []}]', "task 1 has 0 images"),
        (json.dumps([{**TASK, "annotations": [7]}]).encode(), "task 1 is of another form"),
        (json.dumps([{**TASK, "annotations": [{}]}]).encode(), "task 1 is of another form"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_whatever_a_command_meets_ends_in_one_line(mine, error_of, content, message):
    Path("labels.csv").write_bytes(content)
    line = error_of(cdc_train.main, "labels.csv", "--trainer", "ZeroshotCLIP")
    assert "\n" not in line.strip()
    with refuses(message):
        read_labels("labels.csv")
    with refuses(message):
        PromptedClassifier.fit("labels.csv")


def test_labels_of_one_class_are_refused_for_a_training_alone(mine):
    Path("labels.csv").write_text(table([row for row in rows_of(mine) if row[1] == "Käse"]))
    with refuses("labels.csv has labels of one class only, Käse"):
        PromptedClassifier.fit("labels.csv")
    assert len(labelled_in("labels.csv")[1]) == 10


def test_a_small_class_is_called_by_its_name(mine):
    Path("labels.csv").write_text(table(rows_of(mine)[8:]))
    with refuses(r"labels.csv has 1 class with fewer than 4 images: Käse \(2\)"):
        PromptedClassifier.fit("labels.csv", backbone="tiny", trainer="GDA")


# ---- Label Studio ----


def annotation(name, **facts):
    return {"result": [{"type": "choices", "value": {"choices": [name]}}], **facts}


@pytest.mark.parametrize(
    "annotations, label",
    [
        (
            [
                annotation("new", updated_at="2024-03-01T10:00:00.5Z"),
                annotation("old", updated_at="2024-02-01T10:00:00Z"),
            ],
            "new",
        ),
        (
            [
                annotation(
                    "new", created_at="2024-01-01T10:00:00Z", updated_at="2024-03-01T10:00:00Z"
                ),
                annotation("old", created_at="2024-02-01T10:00:00Z"),
            ],
            "new",
        ),
        (
            [  # an hour before that is one after
                annotation("new", created_at="2024-02-01T10:00:00+00:00"),
                annotation("old", created_at="2024-02-01T11:00:00+02:00"),
            ],
            "new",
        ),
        ([annotation("old"), annotation("new")], "new"),
        ([annotation("old", updated_at="2024-03-01T10:00:00Z"), annotation("new")], "new"),
        (
            [
                annotation("new", updated_at="2024-03-01T10:00:00Z"),
                annotation("x", updated_at="2024-04-01T10:00:00Z", was_cancelled=True),
            ],
            "new",
        ),
    ],
)
def test_the_newest_annotation_is_the_newest(mine, annotations, label):
    task = {"data": {"image": rows_of(mine)[0][0]}, "annotations": annotations}
    Path("export.json").write_text(json.dumps([task]))
    known = read_labels("export.json")
    assert known.labels == [label]
    are_different = sum(not made.get("was_cancelled") for made in annotations) > 1
    said = [note for note in known.notes if "annotations of 1 task differ, such as task 1" in note]
    assert bool(said) is are_different


@pytest.mark.parametrize("more", [{}, {"annotations": []}])
def test_predictions_are_no_labels(mine, more):
    tasks = [{"data": {"image": name}, "predictions": [{}], **more} for name, _ in rows_of(mine)]
    Path("export.json").write_text(json.dumps(tasks))
    with refuses("export.json has predictions only.*export annotations"):
        read_labels("export.json")


# ---- a run's own answers ----

ANSWERS = ("image", "label", "doubtful", "uncertainty", "class_1", "probability_1")


@pytest.mark.parametrize("columns", [ANSWERS, ANSWERS[:4]])
def test_a_runs_own_answers_are_no_labels_until_a_person_has_looked(mine, columns):
    values = ("", 0.5, "wasp", 0.5)[: len(columns) - 2]
    answers = [(name, "wasp", *values) for name, _ in rows_of(mine)]
    Path("labels.csv").write_text(table(answers, columns))
    for reading in (read_labels, labelled_in, PromptedClassifier.fit):
        with refuses("holds a run's own answers .*into a column corrected, or keep only"):
            reading("labels.csv")
    looked = [(*row, name) for row, (_, name) in zip(answers, rows_of(mine))]
    looked[0] = (*answers[0], "")
    Path("labels.csv").write_text(table(looked, (*columns, "corrected")))
    assert named_in("labels.csv") == rows_of(mine)[1:], "the label that a person gave, or none"
    Path("labels.csv").write_text(table([row[:2] for row in answers]))
    assert {*read_labels("labels.csv").labels} == {"wasp"}


# ---- a run ----


def test_a_run_on_a_file_copies_nothing_and_calls_each_image_as_the_file_does(mine, train_on):
    """The answers, the report's pictures, and what can't be read; the same command again finds it done."""
    folder = Path("tables")
    folder.mkdir()
    rows = rows_of(mine, lambda path: f"../{path}")
    Path("tables/my labels.csv").write_text(table(rows))
    Path(rows[3][0].removeprefix("../")).write_bytes(b"no image")
    before = contents_of(mine)
    code, record, said = train_on(Path("tables/my labels.csv"), trainer="ZeroshotCLIP")
    assert code == 0, said
    assert f"{rows[3][0]} (it is not an image of a known format)" in said
    after = contents_of(mine)
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(mine).parts[0] for path in after.keys() - before.keys()} == {"out"}
    names = kept_answers(mine / "out", "test")["image"].tolist()
    left = sorted(name for name, _ in rows if name != rows[3][0])
    assert sorted(names) == left, "few: all are tested"
    assert [*record["skipped_images"].values()] == [[rows[3][0]]]
    run = SimpleNamespace(record=record, is_multi_label=False)
    found = find_images(run, str(mine / "tables/my labels.csv"))
    assert {*found} == {name for name, _ in rows}
    assert [os.path.relpath(found[name].path, folder) for name in left] == left
    code, again, said = train_on(Path("tables/my labels.csv"), trainer="ZeroshotCLIP")
    assert again == record
    assert "Done already" in said
    rows[0] = (rows[0][0], NAMES[1])
    Path("tables/my labels.csv").write_text(table(rows))
    code, _, said = train_on(Path("tables/my labels.csv"), trainer="ZeroshotCLIP")
    assert code == 0
    assert "The next round: 1 label changed" in said


def test_the_order_of_the_rows_and_their_folder_change_no_number(mine):
    """The division and the hash of what is trained on."""
    hashes = set()
    for number, rows in enumerate((rows_of(mine), rows_of(mine)[::-1])):
        (mine / f"moved{number}").mkdir()
        os.rename("pics", f"moved{number}/pics")
        file = mine / f"moved{number}/labels.csv"
        file.write_text(table(rows))
        hashes.add(images_in(file, CFG).split_hash)
        os.rename(f"moved{number}/pics", "pics")
    assert len(hashes) == 1


def with_groups(mine, number):
    """A file in which every so many pictures of each class are of one patient: groups cross classes."""
    rows = [(*row, f"patient {place % number}") for place, row in enumerate(rows_of(mine))]
    Path("labels.csv").write_text(table(rows, ("image", "label", "Group")))
    return {name: group for name, _, group in rows}


@pytest.mark.parametrize("can_fold", [True, False])
def test_the_groups_that_a_file_names_are_divided_as_a_whole(mine, can_fold):
    """Into parts, over all classes; nothing is guessed beside them."""
    patient = with_groups(mine, 5)
    images = images_in(mine / "labels.csv", CFG, can_fold)
    numbers = {}
    for path, number in images.groups.items():
        numbers.setdefault(patient[image_name(path)], set()).add(number)
    assert sorted(map(len, numbers.values())) == [1] * 5
    assert "20 images belong together, in 5 groups" in images.notes[-1]
    parts = {}
    for part in ("train_x", "val", "test"):
        for image in getattr(images, part):
            parts.setdefault(patient[image_name(str(image.impath))], set()).add(part)
    assert {*map(len, parts.values())} == {2 if can_fold else 1}, "folds: train_x is tested"


def test_a_run_of_a_file_is_of_its_groups(mine, train_on):
    """Intervals count them; with others it is another run; of one group nothing is held out."""
    with_groups(mine, 5)
    _, record, said = train_on(Path("labels.csv"), trainer="GDA")
    assert "belong together, in 5 groups" in said
    assert record["metrics"]["test"]["images"] == 20
    assert record["metrics"]["test"]["effective_images"] <= 20
    with_groups(mine, 4)
    code, _, said = train_on(Path("labels.csv"), trainer="GDA")
    assert code == 2
    assert "its images are others" in said
    rows = [(*row, row[1]) for row in rows_of(mine)]
    Path("labels.csv").write_text(table(rows, ("image", "label", "group")))
    with refuses("has one group only of .*Käse.*leave out the column group"):
        images_in(mine / "labels.csv", CFG, can_fold=True)


def test_fit_reads_files_without_an_ending_where_they_are_and_writes_arrays_beside_the_run(mine):
    paths = []
    for name, _ in rows_of(mine):
        paths.append(str(Path(name).with_suffix("")))
        os.rename(name, paths[-1])
    labels = [Path(path).parent.name for path in paths]
    images = [*paths[:-1], numpy.asarray(Image.open(paths[-1]))]
    given = {"trainer": "ZeroshotCLIP", "backbone": "tiny", "folder": mine / "run"}
    fitted = PromptedClassifier.fit(images, labels, **given)
    assert fitted.record["metrics"]["test"]["images"] == 20
    assert sorted(os.listdir("run-images")) == ["000019.png", "run-images.csv"]
    expected = [*map(os.path.abspath, paths[:-1]), "000019.png"]
    assert [name for name, _ in named_in("run-images/run-images.csv")] == expected
    assert PromptedClassifier.fit(images, labels, **given).record == fitted.record
    assert record_of("run") == fitted.record
    assert fitted.evaluate("run-images/run-images.csv").images == 20
    lists = ImageFolder.list_images(ImageFolder.find("run-images/run-images.csv"))
    assert len(sum(lists, [])) == 20

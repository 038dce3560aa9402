"""What a command is told holds for either task: groups, shots, small labels, tests of other prompts, nothing
but names."""

import re

import numpy
import pytest

from labelling import PromptedClassifier
from tests.labelling.cases import MULTI, NAMES, PICTURES, SINGLE, over_tasks, train, write
from tests.runs import record_of
from trainers.common.record_file import read_answers


@pytest.fixture
def trained_on(small_clip_file, tmp_path):
    """``trained_on(task, file, *more)``: the record of a training that succeeds."""

    def make(task, file, *more, name="new"):
        assert train(task, file, tmp_path / name, small_clip_file, *more) == 0
        return record_of(tmp_path / name)

    return make


@pytest.fixture
def refused(small_clip_file, tmp_path, capsys):
    """``refused(task, file, *more)``: the one line with which a training is refused."""

    def start(task, file, *more, name="new"):
        capsys.readouterr()
        assert train(task, file, tmp_path / name, small_clip_file, *more) == 2
        lines = capsys.readouterr().err.splitlines()
        (line,) = (line for line in lines if line.startswith("error: "))
        return line

    return start


# ---- groups ----


def grouped_rows(task, number):
    """Rows with the name of one of so many groups, each of neighbours."""
    of_each = PICTURES // number
    return [(*row, f"film {place // of_each}") for place, row in enumerate(task.rows())]


@over_tasks
@pytest.mark.parametrize("road", ["column", "rule"])
def test_a_group_is_in_one_fold_and_counts_once(task, road, own_pictures, trained_on, tmp_path):
    """Also in what is promised; named by a column, or by a rule for the files' names."""
    folder = own_pictures(task)
    if road == "column":
        file = write(folder / "g.csv", grouped_rows(task, 12), ("image", "label", "group"))
        trained_on(task, file)
        own = [place // 4 for place in range(PICTURES)]
    else:
        trained_on(task, folder / "labels.csv", "--group-by", "across:([0-9]+)[0-9].png|[0-9].png")
    answers = read_answers(str(tmp_path / "new"), "test", record_of(tmp_path / "new"))
    place = [int(re.findall("[0-9]+", name)[-1]) for name in answers["image"]]
    if road == "column":
        group = [own[number] for number in place]
    else:
        group = [number // 10 if number > 9 else -number for number in place]
    if "fold" in answers:
        folds = {name: {*answers["fold"][numpy.array(group) == name]} for name in {*group}}
        assert {*map(len, folds.values())} == {1}
    assert len({*zip(answers["group"], group)}) == len({*answers["group"]}) == len({*group})
    assert answers["is_new"].all()


@over_tasks
def test_other_groups_are_another_run(task, own_pictures, trained_on, refused):
    folder = own_pictures(task)
    columns = ("image", "label", "group")
    file = write(folder / "g.csv", grouped_rows(task, 12), columns)
    trained_on(task, file)
    write(file, grouped_rows(task, 16), columns)
    assert "belongs to another run (its images are others" in refused(task, file)
    write(file, grouped_rows(task, 12)[::-1], columns)
    trained_on(task, file)


@over_tasks
def test_a_column_and_a_rule_for_groups_contradict(task, own_pictures, refused):
    file = write(own_pictures(task) / "g.csv", grouped_rows(task, 12), ("image", "label", "group"))
    assert "by the column group: leave out --group-by" in refused(task, file, "--group-by", "(.)")


@over_tasks
def test_pictures_of_one_group_are_refused(task, own_pictures, refused):
    file = write(own_pictures(task) / "g.csv", grouped_rows(task, 1), ("image", "label", "group"))
    assert "one group" in refused(task, file)


# ---- rows ----


@over_tasks
def test_the_same_table_in_another_order_is_the_same_run(
    task, own_run, own_pictures, small_clip_file, capsys
):
    """As other people's spreadsheets sort it."""
    file = own_pictures(task) / "labels.csv"
    folder = own_run(task)
    before = (folder / "results.json").read_bytes()
    for rows in (task.rows()[::-1], sorted(task.rows())):
        write(file, rows)
        capsys.readouterr()
        assert train(task, file, folder, small_clip_file) == 0
        assert "Done already" in "".join(capsys.readouterr())
    assert (folder / "results.json").read_bytes() == before
    rows = task.rows()
    rows[0], rows[7] = (rows[0][0], rows[7][1]), (rows[7][0], rows[0][1])
    write(file, rows)
    assert train(task, file, folder, small_clip_file) == 0
    assert "2 labels changed" in "".join(capsys.readouterr())


# ---- small labels ----


@over_tasks
def test_small_labels_are_left_out_where_that_is_asked_for(task, own_pictures, trained_on):
    rows = task.rows()
    for place in (0, 8):
        names = ";".join(filter(None, (rows[place][1], "rare"))) if task is MULTI else "rare"
        rows[place] = (rows[place][0], names)
    file = write(own_pictures(task) / "rare.csv", rows)
    record = trained_on(task, file, "--skip-small")
    assert record["classnames"] == NAMES
    assert re.search(r"Left out: .*rare", " ".join(record["notes"]))
    left = PICTURES if task is MULTI else PICTURES - 2
    assert record["metrics"]["test"]["images"] == left, "of several labels the pictures stay"


@over_tasks
def test_small_labels_are_refused_or_trained_on_unless_they_are_left_out(
    task, own_pictures, trained_on, refused
):
    rows = task.rows()
    for place in range(3):
        rows[place] = (rows[place][0], "rare")
    file = write(own_pictures(task) / "rare.csv", rows)
    if task is MULTI:
        assert trained_on(task, file)["classnames"] == sorted([*NAMES, "rare"])
    else:
        assert "leave these out with --skip-small" in refused(task, file)


@over_tasks
def test_where_every_label_is_small_none_can_be_left_out(task, own_pictures, refused):
    rows = [("0.png", "a"), ("1.png", "b"), ("2.png", "a"), ("3.png", "b")]
    file = write(own_pictures(task) / "rare.csv", rows)
    assert re.search(r"a \(2\).*add some", refused(task, file, "--skip-small"))


# ---- shots ----


@over_tasks
def test_shots_are_of_each_label(task, own_pictures, trained_on, tmp_path):
    record = trained_on(task, own_pictures(task) / "labels.csv", "--shots", 3)
    assert record["shots"] == 3
    assert record["fewshot_sample"]["hash"]
    other = trained_on(
        task, tmp_path / "pictures/labels.csv", "--shots", 3, "--seed", 2, name="other"
    )
    assert other["fewshot_sample"]["hash"] != record["fewshot_sample"]["hash"]
    assert record["metrics"]["test"]["images"] < PICTURES, "the others are held out"


# ---- roads beside training ----


@over_tasks
def test_a_test_of_a_run_says_how_many_pictures_it_was_trained_on(
    task, run_of, pictures_of, trained_on
):
    model = run_of(task)
    tested = trained_on(task, pictures_of(task) / "labels.csv", "--eval-only", "--model-dir", model)
    assert tested["prompts_hash"] == record_of(model)["prompts_hash"]
    number = tested["metrics"]["test"]["images"]
    assert f"{number} of {number} images tested were trained on" in " ".join(tested["notes"])


@over_tasks
def test_without_training_a_run_is_built_and_leaves_no_record(
    task, pictures_of, small_clip_file, tmp_path
):
    file = pictures_of(task) / "labels.csv"
    assert train(task, file, tmp_path / "new", small_clip_file, "--no-train") == 0
    assert not (tmp_path / "new/results.json").exists()


@over_tasks
def test_the_names_alone_can_be_tested(task, pictures_of, trained_on, tmp_path):
    record = trained_on(task, pictures_of(task) / "labels.csv", "--trainer", "ZeroshotCLIP")
    assert record["trainer"] == "ZeroshotCLIP"
    assert task.metric in record["metrics"]["test"]
    assert record["parameters"]["learnable"] == 0
    answers = PromptedClassifier.load(tmp_path / "new").predict([pictures_of(task) / "0.png"])
    assert len(answers.labels[0]) == 0 if task is MULTI else answers.labels[0] in NAMES


@over_tasks
def test_a_trainer_of_the_other_task_is_refused_before_a_picture_is_opened(
    task, own_pictures, refused
):
    folder = own_pictures(task)
    (folder / "0.png").write_bytes(b"broken")
    if task is MULTI:
        line = refused(task, folder / "labels.csv", "--trainer", "CoOp")
        assert (
            "CoOp chooses one class per picture, and can't answer yes or no to each label: take"
            in line
        )
        assert "--trainer BinaryProbe or ZeroshotCLIP" in line
    else:
        assert "unknown trainer 'BinaryProbe'" in refused(
            task, folder / "labels.csv", "--trainer", "BinaryProbe"
        )


@over_tasks
def test_a_fitted_trainer_is_not_trained_once_more(task, pictures_of, refused):
    line = refused(task, pictures_of(task) / "labels.csv", "--refit")
    assert "--refit is of trainers that learn in epochs" in line


@over_tasks
def test_a_run_does_not_take_the_place_of_one_of_the_other_task(
    task, own_run, own_pictures, refused, tmp_path
):
    other = SINGLE if task is MULTI else MULTI
    own_run(other)
    assert "belongs to another run" in refused(task, own_pictures(task) / "labels.csv", name="run")

"""Which pictures to label next: none that is labelled, of near-duplicates one, spread while few are labelled,
and honest chances of those that are drawn at random."""

import json
import shutil

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelling import next_labels
from labelling.answers.to_label import Pool, draw, labelled_images, order_of
from labelling.commands import predict as cdc_predict
from labelling.next_labels import FEW_PER_CLASS, most_uncertain, next_to_label, spread
from labelling.table import read_table
from tests.labelling.cases import over_tasks, read, write
from tests.runs import call
from trainers.common.record_file import UNFAMILIAR
from trainers.common.trained_on import UNKNOWN_PICTURES

WANTED = 12
POOL = 36  # pictures that are not labelled


@pytest.fixture
def pool(own_pictures, tmp_path):
    """``pool(task)``: a folder of pictures, some of a run's and others, one of them twice."""

    def of(task):
        folder = own_pictures(task)
        for number in range(POOL):
            with Image.open(folder / f"{number}.png") as picture:
                turned = picture.transpose(Image.Transpose.ROTATE_90)
                turned.save(folder / f"new{number}.png")
        shutil.copy(folder / "new3.png", folder / "twin.png")
        return folder

    return of


def asked(run, folder, file, *more):
    assert call(cdc_predict.main, "--run", run, folder, "--label-next", WANTED, *more) == 0
    return file


@over_tasks
def test_what_is_asked_for_is_not_labelled_and_no_near_duplicate(task, run_of, pool, tmp_path):
    folder = pool(task)
    rows = read(asked(run_of(task), folder, tmp_path / "n.csv", "--csv", tmp_path / "n.csv"))
    names = [row["image"].rpartition("/")[2] for row in rows]
    assert len({*names}) == len(names) == WANTED
    assert all(name.startswith("new") or name == "twin.png" for name in names)
    assert not {"new3.png", "twin.png"} <= {*names}
    assert "asked_with" not in rows[0]
    assert "features" not in rows[0]


@over_tasks
def test_a_tenth_is_drawn_at_random_with_a_known_chance(task, run_of, pool, tmp_path):
    """Weighted by these, what was asked for counts for all pictures without a label."""
    folder = pool(task)
    more = "--csv", tmp_path / "n.csv", "--at-random"
    rows = read(asked(run_of(task), folder, tmp_path / "n.csv", *more))
    chances = numpy.array([float(row["asked_with"]) for row in rows])
    drawn = WANTED // 10
    assert (chances < 1).sum() == drawn
    assert (1 / chances).sum() == pytest.approx(POOL + 1)


@pytest.fixture
def saved_again(pool):
    """``saved_again(task)``: the folder of ``pool`` with six labelled pictures that have other bytes."""

    def of(task):
        folder = pool(task)
        for number in range(6):
            with Image.open(folder / f"{number}.png") as picture:
                ending = ("png", "jpg", "bmp")[number % 3]
                picture.save(
                    folder / f"again{number}.{ending}", quality=90, subsampling=0, dpi=(300, 300)
                )
        return folder

    return of


@over_tasks
def test_labelled_pictures_that_were_saved_again_are_not_asked_for(
    task, run_of, saved_again, tmp_path, capsys, recwarn
):
    """Nor does scikit-learn warn of clusters that twins make fewer."""
    folder = saved_again(task)
    table = tmp_path / "n.csv"
    everything = "--run", run_of(task), folder, "--label-next", 2 * POOL, "--csv", table
    assert call(cdc_predict.main, *everything) == 0
    names = [row["image"].rpartition("/")[2] for row in read(table)]
    assert len(names) == POOL  # of the twins one
    assert not [name for name in names if name.startswith("again")]
    said = capsys.readouterr().err
    assert f"{POOL} images of {POOL + 1} without labels" in said
    assert "Labelled images that were saved again are left out: again" in said
    assert not recwarn.list


@over_tasks
def test_nor_are_they_drawn_at_random(task, run_of, saved_again):
    """All were drawn with the same probability, and those that are labelled left out."""
    folder = saved_again(task)
    paths = [str(path) for path in [*folder.glob("again*"), *folder.glob("new*")]]
    known = labelled_images(str(run_of(task)), UNKNOWN_PICTURES).known
    found, again, probability = draw(numpy.arange(len(paths)), 30, paths, known)
    assert len({*found}) == 30
    assert min(found) >= 6
    assert 0 < len(again)
    assert max(again) < 6
    assert probability == (30 + len(again)) / len(paths)


@over_tasks
def test_of_labelled_pictures_alone_nothing_is_asked_for(task, run_of, saved_again, capsys):
    again = [*saved_again(task).glob("again*")]
    command = "--run", run_of(task), *again, "--label-next", 3, "--csv", again[0].parent / "n.csv"
    assert call(cdc_predict.main, *command) == 2
    assert "the run has labels of all these images: give others" in capsys.readouterr().err


@over_tasks
def test_answers_to_what_was_asked_for_are_trained_on(task, run_of, pool, tmp_path):
    """From a table and from Label Studio's export."""
    folder = pool(task)
    run = run_of(task)
    file = asked(run, folder, folder / "n.csv", "--csv", folder / "n.csv", "--at-random")
    rows = [(row["image"], *list(row.values())[1:], "red") for row in read(file)]
    write(folder / "corrected.csv", rows, (*read(file)[0], "corrected"))
    table = read_table(str(folder / "corrected.csv"), task.task.multi_label)
    assert table.classnames == ["red"]
    assert len(table.paths) == WANTED
    tasks = asked(
        run, folder, folder / "t.json", "--label-studio", folder / "t.json", "--at-random"
    )
    stored = json.loads(tasks.read_text())
    assert [one["data"]["asked_with"] for one in stored] == [
        pytest.approx(float(row["asked_with"]), rel=1e-4) for row in read(file)
    ]
    for one in stored:
        one["annotations"] = [{"result": one["predictions"][0]["result"]}]
    (folder / "export.json").write_text(json.dumps(stored))
    table = read_table(str(folder / "export.json"), task.task.multi_label)
    assert len(table.paths) == WANTED


@over_tasks
def test_a_killed_choice_goes_on_to_the_same_bytes(task, run_of, pool, tmp_path, monkeypatch):
    folder = pool(task)
    more = "--at-random", "--csv"
    whole = asked(run_of(task), folder, tmp_path / "whole.csv", *more, tmp_path / "whole.csv")

    def die(*_):
        raise KeyboardInterrupt

    command = "--run", run_of(task), folder, "--label-next", WANTED, *more, tmp_path / "n.csv"
    with monkeypatch.context() as patch:
        patch.setattr("labelling.answers.to_label.to_label", die)
        assert call(cdc_predict.main, *command) == 130
    assert (tmp_path / "n.csv.part").exists()
    with monkeypatch.context() as patch:
        patch.setattr("labelling.classifier.PromptedClassifier.predicted_with_features", die)
        assert call(cdc_predict.main, *command) == 0
    assert (tmp_path / "n.csv").read_bytes() == whole.read_bytes()


@over_tasks
@pytest.mark.parametrize(
    "more, said",
    [
        (("--label-next", 0), "it must be at least 1"),
        (("--at-random",), "for --label-next"),
        (("--label-next", 5, "--least-certain-first"), "has an order of its own"),
        (("--label-next", 5, "--classes", "red", "blue"), "no --classes"),
        (("--label-next", 5, "--ray", "auto", "--csv", "x.csv"), "leave out --ray"),
        (("--label-next", 5), "the run has labels of all these images"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(task, run_of, pictures_of, more, said, capsys):
    folder = pictures_of(task)
    assert call(cdc_predict.main, "--run", run_of(task), folder / "1.png", *more) == 2
    assert said in capsys.readouterr().err


# ---- the choice ----


def unit(rows):
    rows = numpy.array(rows, numpy.float32)
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def kinds(each, draws):
    """Features around four directions."""
    centres = numpy.eye(4).repeat(each, axis=0)
    return unit(centres + draws.normal(0, 0.01, centres.shape))


def test_while_few_are_labelled_each_kind_is_asked_for_but_the_labelled_one():
    draws = numpy.random.default_rng(0)
    features = kinds(10, draws)
    known = features[:1]
    uncertainty = numpy.arange(40) / 40
    chosen = next_to_label(features, uncertainty, known, FEW_PER_CLASS - 1, 3, False)
    assert sorted(chosen // 10) == [1, 2, 3]


def test_up_to_a_tenth_are_unlike_the_runs_pictures_the_least_familiar_first():
    p_values = [0.5] * 40
    p_values[7] = UNFAMILIAR / 2
    p_values[3] = UNFAMILIAR
    p_values[30] = 0
    uncertainty = numpy.linspace(1, 0, 40).tolist()
    pool = Pool([], [], uncertainty, p_values, [numpy.ones(2)] * 40)
    for number, first in ((20, [30, 7]), (30, [30, 7, 3]), (40, [30, 7, 3]), (9, [])):
        order = order_of(pool, numpy.zeros((0, 0)), FEW_PER_CLASS, number, multi_label=False)
        assert order == [*first, *(place for place in range(40) if place not in first)]


def test_later_the_most_uncertain_are_asked_for():
    features = kinds(10, numpy.random.default_rng(0))
    uncertainty = numpy.arange(40) / 40
    assert [*next_to_label(features, uncertainty, features, FEW_PER_CLASS, 3, False)] == [
        39,
        38,
        37,
    ]
    assert [*most_uncertain(numpy.array([0.5, 0.7, 0.5]))] == [1, 0, 2]


def test_with_several_labels_each_kind_is_asked_for_however_many_are_labelled():
    features = kinds(10, numpy.random.default_rng(0))
    uncertainty = numpy.arange(40) / 40
    chosen = next_to_label(features, uncertainty, features[:1], 100 * FEW_PER_CLASS, 3, True)
    assert sorted(chosen // 10) == [1, 2, 3]


@given(st.integers(1, 30), st.integers(0, 20), st.integers(1, 40), st.integers(0, 3))
def test_a_choice_is_of_pictures_once_each(number, labelled, wanted, seed):
    draws = numpy.random.default_rng(seed)
    features = unit(draws.normal(size=(number, 3)))
    known = unit(draws.normal(size=(labelled, 3))) if labelled else numpy.zeros((0, 0))
    chosen = spread(features, known, wanted)
    assert len({*chosen.tolist()}) == len(chosen) <= min(wanted, number)
    assert {*chosen.tolist()} <= {*range(number)}


def test_of_more_than_can_be_clustered_a_sample_is(monkeypatch):
    monkeypatch.setattr(next_labels, "MOST_CLUSTERED", 10)
    features = kinds(10, numpy.random.default_rng(0))
    assert len({*spread(features, features, 5).tolist()}) == 5

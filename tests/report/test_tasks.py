"""What holds in a report of either task, one label per picture and several: the headline, classes from the
worst on, the gallery and its lists, pictures, and that names stay text."""

import base64
import io
import re
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import numpy
import pandas
import pytest
from PIL import Image as Pictures

from report.gallery import LEAST_CERTAIN, MISTAKES, WRONG_LABELS
from report.multi_label import taken_for
from report.own import PROMISED, Given, Offer, OwnTraining
from report.page import make_report
from report.pictures import find_images
from report.review import WrongLabels
from report.tasks import headlines, shown_of
from results.runs import collect, group
from tests.results.conftest import (
    LABELS,
    NASTY,
    Page,
    make_answers,
    make_label_answers,
    measured,
    measured_labels,
    write_labels,
    write_run,
)
from tests.runs import REPOSITORY, change_record, record_of, write_answers
from trainers.common.record_file import ZERO_SHOT
from trainers.data.lists import Image
from trainers.evaluation.multi_label import f1_interval, given_in

FOLDER = "pictures"
# of a report on one training
HEADINGS = r'<h2 id="(?:promise|gallery|classes|research)">(.*?)</h2>'


@dataclass(frozen=True)
class Case:
    """A task: how a run of it is written, answers of ``number`` pictures and their metrics, the headline's
    metric and words."""

    write: Any
    answers: Any
    measured: Any
    metric: str
    words: str
    of: str


def write_one_label(root, trainer, arrays, names=LABELS):
    return write_run(root, "train_all", trainer, 1, arrays=arrays, names=names, **SAME)


def write_multi_label(root, trainer, arrays, names=LABELS):
    return write_labels(root, 1, trainer, arrays, names, **SAME)


def one_label_answers(seed=1, number=40):
    answers = make_answers(seed, number)
    answers["image"] = numpy.array([f"{FOLDER}/{index:03d}.png" for index in range(number)])
    return answers


SAME = {"backbone_hash": "b", "split_hash": "s"}
ONE_LABEL = Case(
    write_one_label,
    one_label_answers,
    measured,
    "accuracy",
    "right answers",
    "40 test images",
)
MULTI_LABEL = Case(
    write_multi_label,
    make_label_answers,
    measured_labels,
    "map",
    "mAP",
    "all 40 pictures by 5-fold cross-validation",
)
OFFER = Offer(
    "A promise.",
    numpy.linspace(0.1, 1, 10),
    numpy.linspace(0, 0.3, 10),
    {0.1: Given(0.4, 0.05)},
    "of the pictures",
)
OWN = OwnTraining(OFFER)
over_tasks = pytest.mark.parametrize("task", [ONE_LABEL, MULTI_LABEL], ids=lambda task: task.metric)


def text_of(path):
    return " ".join(Page(path).text.replace("\xa0", " ").split())


def series_of(folder):
    return group(collect(folder))


# ---- the head ----


@over_tasks
def test_the_page_begins_with_what_was_measured_of_which_pictures_beside_the_untrained_clip(
    task, tmp_path
):
    trained = task.write(tmp_path / "runs", "CDC", task.answers(1))
    untrained = task.write(tmp_path / "runs", ZERO_SHOT, task.answers(2))
    head, itself = make_report([tmp_path / "runs"], tmp_path / "page.html", {}, own=OWN)
    value, zero_shot = (
        record_of(folder)["metrics"]["test"][task.metric] for folder in (trained, untrained)
    )
    assert (head.value, head.zero_shot) == (value, zero_shot)
    assert itself.zero_shot_itself
    text = text_of(tmp_path / "page.html")
    assert f"{value:.1f} % {task.words} by {head.model} on {head.tested_on}, {task.of}." in text
    assert f"the same CLIP untrained (zero-shot) {zero_shot:.1f} %" in text
    assert f"chance, {head.chance_of} {head.chance:.1f} %" in text
    assert "A promise." in text


@over_tasks
def test_out_of_fold_the_number_is_at_least_about(task, tmp_path):
    """Unless the pictures are known not to stand for others."""
    run = task.write(tmp_path / "runs", "CDC", task.answers(1))
    for facts, is_least in (
        ({"folds": None}, False),
        ({"folds": 5, "found_in_part": [["a.png", "b.png"]]}, False),
        ({"folds": 5, "found_in_part": None}, True),
    ):
        change_record(run, **facts)
        (head,) = headlines(series_of(tmp_path / "runs"))
        assert head.is_least == is_least
    make_report([tmp_path / "runs"], tmp_path / "page.html", {}, own=OWN)
    assert f"At least about {head.value:.1f} %" in text_of(tmp_path / "page.html")


@over_tasks
def test_an_untrained_clip_that_is_missing_has_its_reason(task, tmp_path):
    task.write(tmp_path / "runs", "CDC", task.answers(1))
    own = OwnTraining(OFFER, why_alone="its test failed")
    make_report([tmp_path / "runs"], tmp_path / "page.html", {}, own=own)
    assert "(zero-shot) not known: its test failed" in text_of(tmp_path / "page.html")


@over_tasks
def test_a_report_on_own_pictures_goes_from_the_number_to_pictures_and_folds_research(
    task, tmp_path
):
    answers = task.answers(1)
    answers["group"] = numpy.arange(40) // 2
    task.write(tmp_path / "runs", "CDC", answers)
    task.write(tmp_path / "runs", ZERO_SHOT, task.answers(2))
    make_report([tmp_path / "runs"], tmp_path / "page.html", {}, own=OWN)
    shown, folded = text_of(tmp_path / "page.html").split("For research Tables, calibration")
    order = (
        "A promise.",
        PROMISED,
        "Pictures to look at",
        WRONG_LABELS,
        MISTAKES,
        "Near-duplicates",
        LEAST_CERTAIN,
        "least accurate first" if task is ONE_LABEL else "least average precision first",
    )
    places = [shown.rindex(words) for words in order]
    assert places == sorted(places)
    assert "Where the numbers come from" in folded
    assert ZERO_SHOT not in shown[shown.rindex("Pictures to look at") :]
    assert ZERO_SHOT in folded
    source = (tmp_path / "page.html").read_text()
    research = source.index('<h2 id="research">')
    assert source.index('alt="Share of wrong labels') < source.index('<h2 id="gallery">')
    assert source.index('<h2 id="gallery">') < source.index('<h2 id="classes">') < research
    assert source[research:].split("<details")[1].startswith("><summary>")
    page = (REPOSITORY / "docs/tutorials/report.md").read_text("utf-8")
    _, *headings = re.findall(r"(?m)^## \d\. (.*)$", page)
    assert headings == re.findall(HEADINGS, source), "the page that explains it has its order"


@over_tasks
@pytest.mark.parametrize(
    "other", [{"backbone_hash": "other"}, {"split_hash": "other"}, {"number": 30}]
)
def test_the_untrained_clip_is_compared_on_the_same_pictures_with_the_same_weights(
    task, other, tmp_path
):
    task.write(tmp_path, "CDC", task.answers(1))
    folder = task.write(tmp_path, ZERO_SHOT, task.answers(1, other.get("number", 40)))
    assert ("number" in other) == (headlines(series_of(tmp_path))[0].zero_shot is None)
    change_record(folder, **{name: value for name, value in other.items() if name != "number"})
    assert headlines(series_of(tmp_path))[0].zero_shot is None


def test_runs_of_one_task_are_not_compared_with_those_of_the_other(tmp_path):
    several = write_multi_label(tmp_path / "one", "BinaryProbe", make_label_answers(1))
    data = record_of(several)["run"]["dataset"]
    for trainer in ("CDC", ZERO_SHOT):
        folder = write_one_label(tmp_path / "two", trainer, one_label_answers())
        change_record(folder, run={**record_of(folder)["run"], "dataset": data})
    heads = make_report([tmp_path / "one", tmp_path / "two"], tmp_path / "page.html", {})
    accuracy = record_of(folder)["metrics"]["test"]["accuracy"]
    assert [(head.trainer, head.zero_shot) for head in heads] == [
        ("CDC", accuracy),
        (ZERO_SHOT, accuracy),
        ("BinaryProbe", None),
    ]
    text = text_of(tmp_path / "page.html")
    assert "Accuracy in percent, mean over seeds" in text
    assert "mAP, the mean of the labels' average precisions, in percent" in text


def test_chance_of_map_is_the_mean_share_of_pictures_that_have_a_label(tmp_path):
    """Of labels at random the average precision tends to the share of pictures that have the label."""
    answers = make_label_answers(1)
    write_multi_label(tmp_path, "BinaryProbe", answers)
    (head,) = headlines(series_of(tmp_path))
    assert head.chance == pytest.approx(100 * answers["truth"][:, :-1].mean())
    assert head.low is None
    assert head.facts["mean of the labels' F1"] == (
        f"{measured_labels(answers, LABELS)['macro_f1']:.1f} %"
    )


def test_the_interval_of_f1_is_that_of_groups(tmp_path):
    answers = make_label_answers(1)
    write_multi_label(tmp_path, "BinaryProbe", answers)
    (head,) = headlines(series_of(tmp_path))
    low, high = f1_interval(given_in(answers), answers["truth"], answers["group"])
    assert head.facts["F1 of all labels"] == (
        f"{measured_labels(answers, LABELS)['micro_f1']:.1f} % (95 % interval {low:.1f} to "
        f"{high:.1f}, each of 20 groups counted once)"
    )


def test_the_mean_of_the_seeds_counts(tmp_path):
    for seed in (1, 2):
        write_labels(tmp_path, seed)
    maps = [run.metrics["map"] for run in collect(tmp_path)]
    (head,) = headlines(series_of(tmp_path))
    assert (head.value, head.seeds) == (pytest.approx(numpy.mean(maps)), 2)


# ---- class by class ----


@over_tasks
def test_classes_come_from_the_worst_on_and_each_row_has_a_cell_for_each_column(task, tmp_path):
    task.write(tmp_path, "CDC", task.answers(1))
    (entry,) = series_of(tmp_path)
    page = shown_of(entry).class_page(entry, {})
    (place,) = (
        page.columns.index(name)
        for name in ("right, %", "average precision")
        if name in page.columns
    )
    values = [row.cells[place] for row in page.classes]
    known = [float(value) for value in values if value]
    assert known == sorted(known)
    assert len(known) > 2
    assert values[len(known) :] == [""] * (len(values) - len(known)), "labels without a picture"
    assert {len(row.cells) for row in page.classes} == {len(page.columns)}


def test_the_row_of_a_label_has_its_measures_threshold_and_what_is_given_instead(tmp_path):
    answers = make_label_answers(1, 200)
    write_multi_label(tmp_path, "BinaryProbe", answers)
    (entry,) = series_of(tmp_path)
    own = entry.first.metrics["per_label"]["cat"]
    given = answers["probability"] >= answers["threshold"][answers["fold"]]
    missed = answers["truth"][:, 1] & ~given[:, 1]
    wrong = (given & ~answers["truth"])[missed].sum(axis=0)
    assert wrong.any()
    (row,) = (row for row in shown_of(entry).class_page(entry, {}).classes if row.name == "cat")
    assert row.cells == [
        "cat",
        f"{own['average_precision']:.1f}",
        str(answers["truth"][:, 1].sum()),
        f"{own['f1']:.1f}",
        f"{100 * own['threshold']:.1f}",
        f"{own['ece']:.1f}",
        f"{LABELS[wrong.argmax()]} ({wrong.max()})",
    ]


def test_a_label_that_is_missed_is_taken_for_the_one_that_is_wrongly_given_there():
    truth = numpy.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0]], bool)
    given = numpy.array([[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]], bool)
    assert taken_for(given, truth, ["ball", "cat", "dog"]) == {"cat": ("dog", 2)}


# ---- pictures ----


@over_tasks
def test_gallery_and_lists_have_the_same_pictures_in_one_order(task, tmp_path, monkeypatch):
    """Whatever labels are taken for wrong, which is asked once per page."""
    found = WrongLabels(numpy.full(40, 0.4), numpy.array([7, 3, 12]), True, task is MULTI_LABEL)
    finds = Mock(return_value=found)
    monkeypatch.setattr("report.gallery.probably_wrong", finds)
    monkeypatch.setattr("report.multi_label.wrong_multi_labels", finds)
    task.write(tmp_path / "runs", "CDC", task.answers(1))
    (entry,) = series_of(tmp_path / "runs")
    made = shown_of(entry).gallery(entry, {})
    finds.reset_mock()
    make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    finds.assert_called_once()
    assert found.says() in text_of(tmp_path / "page.html")
    assert set(made.cards) == {WRONG_LABELS, MISTAKES, LEAST_CERTAIN}
    assert len(made.cards[WRONG_LABELS]) == 3
    for kind, ending in ((WRONG_LABELS, "wrong_labels"), (LEAST_CERTAIN, "least_certain")):
        listed = pandas.read_csv(tmp_path / f"page_{ending}.csv")
        shown = [card.image for card in made.cards[kind]]
        assert listed["image"][: len(shown)].tolist() == shown
        assert listed["probability"][: len(shown)].tolist() == pytest.approx(
            [card.probability / 100 for card in made.cards[kind]], abs=1e-6
        )
    assert len(listed) == 40
    assert (listed["uncertainty"].diff()[1:] <= 1e-7).all()


def write_pictures(names, folder, monkeypatch):
    """Write a picture of one colour for each name, and let the data set have them; return the colours (N, 3)."""
    colours = numpy.random.default_rng(0).integers(0, 256, (len(names), 3))
    (folder / FOLDER).mkdir()
    paths = []
    for name, colour in zip(names, colours):
        path = folder / str(name)
        Pictures.new("RGB", (32, 32), tuple(map(int, colour))).save(path)
        paths.append(Image(str(path), 0, ""))

    class Lists:
        def find(self, root):
            return root

        def list_images(self, folder):
            return [], [], paths

        def undivided_images(self, root, boxes):
            return paths

    monkeypatch.setattr("datasets.every.data_set", lambda name: Lists())
    return colours


@over_tasks
def test_a_picture_is_the_one_that_the_answers_name(task, tmp_path, monkeypatch):
    arrays = task.answers(1)
    colours = write_pictures(arrays["image"], tmp_path, monkeypatch)
    task.write(tmp_path / "runs", "CDC", arrays)
    (entry,) = series_of(tmp_path / "runs")
    made = shown_of(entry).gallery(entry, find_images(entry.first, str(tmp_path)))
    for card in made.cards[LEAST_CERTAIN]:
        content = base64.b64decode(card.picture.split(",")[1])
        shown = numpy.asarray(Pictures.open(io.BytesIO(content)), float).mean(axis=(0, 1))
        nearest = numpy.abs(colours - shown).sum(axis=1).argmin()
        assert arrays["image"][nearest] == card.image


@over_tasks
def test_the_pairs_that_a_warning_of_copies_names_are_drawn_side_by_side(
    task, tmp_path, monkeypatch
):
    arrays = task.answers(1)
    write_pictures(arrays["image"], tmp_path, monkeypatch)
    run = task.write(tmp_path / "runs", "CDC", arrays)
    pairs = arrays["image"][[[0, 4], [8, 2]]].tolist()
    root = str(tmp_path)
    for named, drawn in ((pairs, sum(pairs, [])), (None, [])):
        change_record(run, found_in_part=named)
        make_report([tmp_path / "runs"], tmp_path / "page.html", {}, root=root)
        page = (tmp_path / "page.html").read_text()
        shown = page.partition("<h3>Copies that were found only in part")[2].partition("<h3>")[0]
        assert re.findall(r'<img src="data:image/jpeg;[^"]+" alt="([^,"]+), ', shown) == drawn


def test_a_data_set_of_one_label_has_no_pictures_for_a_multi_label_run(tmp_path, caplog, data_root):
    write_labels(tmp_path, dataset="DescribableTextures")
    assert find_images(*collect(tmp_path), data_root) == {}
    assert "the images of DescribableTextures have one label each" in caplog.text


@over_tasks
def test_without_answers_the_page_has_the_headline_and_says_what_is_missing(task, tmp_path):
    folder = task.write(tmp_path / "runs", "CDC", task.answers(1))
    (folder / "predictions-test.npz").unlink()
    (head,) = make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    text = text_of(tmp_path / "page.html")
    assert f"{head.value:.1f} % {task.words}" in text
    assert "Without predictions-test.npz: 1 of 1 runs" in text
    assert "Gallery" not in text


@over_tasks
def test_names_are_text(task, tmp_path):
    task.write(tmp_path / "runs", "CDC", task.answers(1), NASTY)
    make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    page = Page(tmp_path / "page.html")
    for name in NASTY:
        assert name in page.text
    assert not page.all("script")


@over_tasks
def test_the_list_of_runs_has_the_measures_of_the_task(task, tmp_path):
    folder = task.write(tmp_path / "runs", "CDC", task.answers(1))
    make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    metrics = record_of(folder)["metrics"]["test"]
    source = Page(tmp_path / "page.html").source
    assert f"<td>{metrics[task.metric]:.2f}</td><td>{metrics['macro_f1']:.2f}</td>" in source


def test_a_card_of_several_labels_has_those_that_it_has_or_is_given(tmp_path, monkeypatch):
    found = WrongLabels(numpy.full(3, 0.4), numpy.array([1, 0]), True, is_multi_label=True)
    monkeypatch.setattr("report.multi_label.wrong_multi_labels", lambda *answers: found)
    answers = {
        "image": numpy.array(["p/a.png", "p/b.png", "p/c.png"]),
        "probability": numpy.array([[0.6, 0.1, 0.1], [0.9, 0.1, 0.2], [0.9, 0.1, 0.1]], "float32"),
        "truth": numpy.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]], bool),
        "threshold": numpy.array([[0.5, 0.5, numpy.inf]]),
        "fold": numpy.array([0, 0, 0]),
        "group": numpy.array([0, 1, 2]),
    }
    write_multi_label(tmp_path, "BinaryProbe", answers, ["ball", "cat", "dog"])
    (entry,) = series_of(tmp_path)
    first, second = shown_of(entry).gallery(entry, {}).cards[WRONG_LABELS]
    assert [first.image, second.image] == ["p/b.png", "p/a.png"]
    assert (first.truth, first.answer) == ("cat", "ball")
    assert first.probability == pytest.approx(100 * 0.9 * 0.9 * 0.8)
    assert [(bar.name, bar.verdict) for bar in first.bars] == [("ball", "wrong"), ("cat", "missed")]
    assert [bar[1:3] for bar in second.bars] == [pytest.approx((60, 50))]
    assert second.truth == "none of the labels"


def test_each_split_has_the_thresholds_of_its_own_folds(tmp_path):
    """Of a run whose test pictures were held out, the training pictures are answered out of fold."""
    held_out = make_label_answers(1, 20, folds=1)
    trained = make_label_answers(2, 30)
    trained["image"] = numpy.array([f"train/{index}.png" for index in range(30)])
    folder = write_multi_label(tmp_path, "BinaryProbe", held_out)
    write_answers(folder, "train", trained)
    (entry,) = series_of(tmp_path)
    made = shown_of(entry).gallery(entry, {})
    rows = made.rows[LEAST_CERTAIN]
    expected = {}
    for split, arrays in (("train", trained), ("test", held_out)):
        given = arrays["probability"] >= arrays["threshold"][arrays["fold"]]
        for image, labels in zip(arrays["image"], given):
            expected[image, split] = ";".join(numpy.array(LABELS)[labels])
    assert {row[2:4]: row[5] for row in rows} == expected
    arrays = {"train": trained, "test": held_out}
    bars = 0
    for card in made.cards[LEAST_CERTAIN]:
        own = arrays[card.split]
        (place,) = numpy.flatnonzero(own["image"] == card.image)
        least = own["threshold"][own["fold"][place]]
        for bar in card.bars:
            assert bar.threshold == pytest.approx(100 * min(least[LABELS.index(bar.name)], 1))
            bars += 1
    assert bars > 4


def test_where_no_label_is_ever_given_none_is_called_missed(tmp_path):
    write_labels(tmp_path / "runs", 1, ZERO_SHOT)
    make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    text = text_of(tmp_path / "page.html")
    assert "% mAP by ZeroshotCLIP" in text
    assert "F1 of all labels" not in text
    assert "Gallery" not in text

"""OpenworldAUC as its authors define it, against a loop over pairs of images, out of three runs'
answers."""

import numpy
import pytest

from results.runs import collect
from results.table import tables
from tests.results.conftest import values, write
from tests.runs import change_record, write_answers

BASE, NEW, IMAGES = 3, 2, 15
NAMES = [f"class {k}" for k in range(BASE + NEW)]
# class and place of base and new images, in turn
LABELS = numpy.arange(IMAGES) % (BASE + NEW)
NAMED = numpy.array([f"{label}/{number}.png" for number, label in enumerate(LABELS)])
IS_NEW = LABELS >= BASE
SIGNS = ("base_probability", "new_probability")


def by_pairs(sign, right):
    """1[g(b) = y_b] · 1[r(n) > r(b)] · 1[h(n) = y_n] over pairs, equal signs half, in percent."""
    pairs = []
    for b in numpy.flatnonzero(~IS_NEW):
        for n in numpy.flatnonzero(IS_NEW):
            told_apart = (sign[n] > sign[b]) + (sign[n] == sign[b]) / 2
            pairs.append(right[b] * right[n] * told_apart)
    return 100 * sum(pairs) / len(pairs)


def write_three(root, trainer, seed, left_out=()):
    """The runs of train_base, test_new and test_open; returns OpenworldAUC by a loop, by sign."""
    generator = numpy.random.default_rng(seed)
    measured = {
        "base_accuracy": 60.0,
        "new_accuracy": 30.0,
        "left_out": [*left_out],
        "auroc": dict(zip(SIGNS, (70.0, 55.0))),
        "openworld_auc": {"base_probability": 1.0},  # as former versions had it
    }
    right = numpy.zeros(IMAGES, bool)
    for part, classes, of, first, count in (
        ("train_base", "base", ~IS_NEW, 0, BASE),
        ("test_new", "new", IS_NEW, BASE, NEW),
        ("test_open", "all", LABELS >= 0, 0, BASE + NEW),
    ):
        own = LABELS[of] - first
        top = numpy.array([generator.permutation(count) for _ in own])
        if classes != "all":
            right[of] = top[:, 0] == own
        metrics = {"accuracy": 50.0} | ({"open": measured} if classes == "all" else {})
        facts = {"classnames": NAMES[:count], "metrics": {"test": metrics}}
        folder = write(root, part, trainer, seed, 0.0, classes, f"{part} {seed}", **facts)
        doubts = generator.random((3, len(own))).astype("float32")
        arrays = {
            "image": NAMED[of],
            "label": own,
            "top": top,
            "top_probability": numpy.full(top.shape, 1 / count),
            "max_probability": doubts[0],
            "base_probability": -doubts[1].round(1),
            "new_probability": doubts[2],
        }
        write_answers(folder, "test", arrays)
    return {name: by_pairs(arrays[name], right) for name in SIGNS}


def of_both(folder):
    (table,) = [of for of in tables(collect(folder)) if of.title == "base and new together"]
    return table


def test_each_half_is_answered_by_its_own_test_and_told_apart_by_that_of_all(tmp_path, caplog):
    made = [write_three(tmp_path, "CDC", seed) for seed in (1, 2)]
    by_base, by_new = ([one[sign] for one in made] for sign in SIGNS)
    key = ("openmoji", 16, "CDC", "tiny")
    assert values(of_both(tmp_path))[key] == {
        "base": [60, 60],
        "new": [30, 30],
        "AUROC": [70, 70],
        "OpenworldAUC": pytest.approx(by_base),
        "H": [40, 40],
    }
    assert not caplog.records
    for metric, expected in (("auroc", [55, 55]), ("openworld_auc", by_new)):
        (by_name,) = tables(collect(tmp_path), f"open.{metric}.new_probability")
        assert values(by_name)[key]["all classes"] == pytest.approx(expected)


def without_the_run(folder):
    (folder / "results.json").unlink()


def with_other_prompts(folder):
    change_record(folder, prompts_hash="other")


def of_another_image(folder):
    arrays = dict(numpy.load(folder / "predictions-test.npz"))
    arrays["image"][0] = "9/9.png"
    write_answers(folder, "test", arrays)


def without_sign(folder):
    arrays = dict(numpy.load(folder / "predictions-test.npz"))
    del arrays["base_probability"]
    write_answers(folder, "test", arrays)


@pytest.mark.parametrize(
    "part, change, reason",
    [
        ("test_new", without_the_run, "test_new of it is missing, give the folder of both or run"),
        ("test_new", with_other_prompts, "was tested with other prompts, delete"),
        ("test_new", of_another_image, "was tested on other images, delete"),
        ("test_open", without_sign, "its answers lack base_probability, delete"),
    ],
)
def test_what_does_not_belong_together_has_none(tmp_path, caplog, part, change, reason):
    write_three(tmp_path, "CDC", 1)
    write_three(tmp_path, "CoOp", 1)
    change(tmp_path / f"{part}/openmoji/shots_16/CDC/tiny/seed1")
    assert list(of_both(tmp_path).means.index.unique("trainer")) == ["CoOp"]
    (line,) = [line for line in caplog.messages if "OpenworldAUC" in line]
    assert "openmoji/shots_16/CDC/tiny/seed1" in line
    assert reason in line


def test_the_table_says_who_answers_without_its_base_classifier(tmp_path, caplog):
    write_three(tmp_path, "LinearProbe", 1, left_out=["weight", "bias"])
    write_three(tmp_path, "CDC", 1)
    tables(collect(tmp_path))
    (line,) = caplog.messages
    assert line.startswith("among all classes LinearProbe answers without its weight, bias")

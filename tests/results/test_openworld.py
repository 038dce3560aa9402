"""OpenworldAUC as its authors define it, against a loop over pairs of images, out of three runs'
answers."""

import numpy
import pytest

from results.runs import collect
from results.table import tables
from tests.results.conftest import values, write
from tests.runs import write_answers

BASE, NEW, IMAGES = 3, 2, 15
NAMES = [f"class {k}" for k in range(BASE + NEW)]


def by_pairs(sign, right, is_new):
    """1[g(b) = y_b] · 1[r(n) > r(b)] · 1[h(n) = y_n] over pairs, equal signs half, in percent."""
    base, new = ([*zip(sign[part], right[part])] for part in (~is_new, is_new))
    pairs = [r * s * ((n > b) + (n == b) / 2) for b, r in base for n, s in new]
    return 100 * sum(pairs) / len(pairs)


def write_three(root, trainer, seed, without="", left_out=(), **prompts):
    """The runs of train_base, test_new and test_open, with prompts by part; returns OpenworldAUC by
    a loop, by sign."""
    generator = numpy.random.default_rng(seed)
    labels = numpy.arange(IMAGES) % (BASE + NEW)  # base and new images in turn
    images = numpy.array([f"{label}/{number}.png" for number, label in enumerate(labels)])
    is_new, right = labels >= BASE, numpy.zeros(IMAGES, bool)
    measured = {
        "base_accuracy": 60.0,
        "new_accuracy": 30.0,
        "left_out": [*left_out],
        "auroc": {"base_probability": 70.0, "new_probability": 55.0},
        "openworld_auc": {"base_probability": 1.0},  # as former versions had it
    }
    for part, kind, of, first, count, more in (
        ("train_base", "base", ~is_new, 0, BASE, {}),
        ("test_new", "new", is_new, BASE, NEW, {}),
        ("test_open", "all", labels >= 0, 0, BASE + NEW, {"open": measured}),
    ):
        own = labels[of] - first
        top = numpy.array([generator.permutation(count) for _ in own])
        if kind != "all":
            right[of] = top[:, 0] == own
        if part == without:
            continue
        facts = {"prompts_hash": prompts.get(part, "p"), "classnames": NAMES[:count]}
        facts["metrics"] = {"test": {"accuracy": 50.0, **more}}
        folder = write(root, part, trainer, seed, 0.0, kind, f"{part} {seed}", **facts)
        doubts = generator.random((3, len(own))).astype("float32")
        arrays = {
            "image": images[of],
            "label": own,
            "top": top,
            "top_probability": numpy.full(top.shape, 1 / count),
            "max_probability": doubts[0],
            "base_probability": -doubts[1].round(1),
            "new_probability": doubts[2],
        }
        write_answers(folder, "test", arrays)
    return {name: by_pairs(arrays[name], right, is_new) for name in measured["auroc"]}


def of(folder, title):
    (table,) = [table for table in tables(collect(folder)) if table.title == title]
    return table


def test_each_half_is_answered_by_its_own_test_and_told_apart_by_that_of_all(tmp_path, caplog):
    expected = [write_three(tmp_path, "CDC", seed) for seed in (1, 2)]
    by_base, by_new = (
        pytest.approx([one[f"{sign}_probability"] for one in expected], abs=1e-9)
        for sign in ("base", "new")
    )
    key = ("openmoji", 16, "CDC", "tiny")
    assert values(of(tmp_path, "base and new together"))[key] == {
        "base": [60, 60],
        "new": [30, 30],
        "AUROC": [70, 70],
        "OpenworldAUC": by_base,
        "H": [40, 40],
    }
    assert not caplog.records
    for metric, expected in (("auroc", [55, 55]), ("openworld_auc", by_new)):
        (by_name,) = tables(collect(tmp_path), f"open.{metric}.new_probability")
        assert values(by_name)[key]["all classes"] == expected


def without_sign(arrays):
    del arrays["base_probability"]


def of_another_image(arrays):
    arrays["image"][0] = "9/9.png"


@pytest.mark.parametrize(
    "changes, damage, reason",
    [
        ({"without": "test_new"}, {}, "test_new of it is missing, give the folder of both or run"),
        ({"without": "train_base"}, {}, "train_base of it is missing"),
        ({"test_new": "other"}, {}, "was tested with other prompts, delete"),
        ({}, {"test_new": of_another_image}, "was tested on other images, delete"),
        ({}, {"test_open": without_sign}, "its answers lack base_probability, delete"),
    ],
)
def test_what_does_not_belong_together_has_none(tmp_path, caplog, changes, damage, reason):
    write_three(tmp_path, "CDC", 1, **changes)
    for part, change in damage.items():
        (path,) = (tmp_path / part).rglob("predictions-test.npz")
        arrays = dict(numpy.load(path))
        change(arrays)
        write_answers(path.parent, "test", arrays)
    write_three(tmp_path, "CoOp", 1)
    assert list(of(tmp_path, "base and new together").means.index.unique("trainer")) == ["CoOp"]
    (line,) = [line.getMessage() for line in caplog.records if "OpenworldAUC" in line.getMessage()]
    assert "openmoji/shots_16/CDC/tiny/seed1" in line and reason in line


def test_the_table_says_who_answers_without_its_base_classifier(tmp_path, caplog):
    write_three(tmp_path, "LinearProbe", 1, left_out=["weight", "bias"])
    write_three(tmp_path, "CDC", 1)
    tables(collect(tmp_path))
    (line,) = [line.getMessage() for line in caplog.records]
    assert line.startswith("among all classes LinearProbe answers without its weight, bias")

"""The ablation's table: the bootstrap against a loop and closed forms, the figures by hand,
refusals."""

import statistics

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from protocols.plan import ablation_rows
from results.ablation import collect_ablations, interval, main, resampled_h
from results.table import harmonic_mean
from tests.results.conftest import write
from tests.runs import call, write_answers

SIZES = st.tuples(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1)
)


def rights(generator, seeds, base, new, share=0.6):
    """Made-up (S, N_base) and (S, N_new), whether answers are right."""
    return generator.random((seeds, base)) < share, generator.random((seeds, new)) < share


# ---- the bootstrap ----


@given(SIZES)
def test_resampling_is_the_loop_over_drawn_seeds_and_images(sizes):
    generator = numpy.random.default_rng(sizes[3])
    base, new = rights(generator, *sizes[:3])
    indices = [generator.integers(0, size, (5, size)) for size in sizes[:3]]
    counts = [
        numpy.stack([numpy.bincount(drawn, minlength=drawn.size) for drawn in one])
        for one in indices
    ]
    expected = []
    for seeds, base_images, new_images in zip(*indices):
        of_seeds = []
        for seed in seeds:
            percents = [
                100 * sum(bool(right[seed, image]) for image in images) / len(images)
                for right, images in ((base, base_images), (new, new_images))
            ]
            of_seeds.append(harmonic_mean(percents))
        expected.append(statistics.mean(of_seeds))
    numpy.testing.assert_allclose(
        resampled_h((base, new), *counts), expected, rtol=1e-12, atol=1e-12
    )


def test_images_alone_or_seeds_alone_give_the_quantiles_of_the_binomial_distribution():
    def ends(number, share):
        return [100 * binom.ppf(quantile, number, share) / number for quantile in (0.025, 0.975)]

    # 25 of 40 right; on new classes all are, so that H grows with the accuracy on base
    base, new = numpy.arange(40)[None] < 25, numpy.ones((1, 3), dtype=bool)
    found = interval((base, new), (base & False, new), resamples=50000)
    assert found == pytest.approx([harmonic_mean((end, 100.0)) for end in ends(40, 25 / 40)])
    # 4 of 6 seeds answer everything rightly, the others nothing
    right = numpy.arange(6)[:, None] < 4
    row = numpy.repeat(right, 5, axis=1), numpy.repeat(right, 7, axis=1)
    found = interval(row, (row[0] & False, row[1] & False), resamples=50000)
    assert found == pytest.approx(ends(6, 4 / 6))


# ---- the table ----


def write_row(root, name, seeds=(1, 2), offset=0, trainer="CDC", **changes):
    """The runs of a row, which answer at random."""
    for seed in seeds:
        for part, right in zip(("train_base", "test_new"), answers(seed + offset)):
            classes = "base" if part == "train_base" else "new"
            record = {
                "prompts_hash": f"{name} {seed}",
                "parameters": {"learnable": 1000, "total": 10**6},
                "seconds_per_step": 0.02 if classes == "base" else None,
                "test_images_per_second": 90.0 + seed,
            } | changes
            facts = (trainer, seed, 100 * right.mean(), classes, f"{part} {seed}")
            folder = write(root, part, *facts, recipe=name, **record)
            label = numpy.arange(len(right)) % 5
            arrays = {
                "image": [f"{classes}/{index}.png" for index in range(len(right))],
                "label": label,
                "top": (label + ~right)[:, None],
                "top_probability": numpy.ones((len(right), 1)),
                "max_probability": numpy.zeros(len(right)),
            }
            write_answers(folder, "test", arrays)


def answers(seed):
    """Whether a run with that seed answers each of 50 base and 40 new images rightly."""
    return [right[0] for right in rights(numpy.random.default_rng(seed), 1, 50, 40)]


@pytest.fixture
def folder(tmp_path):
    write_row(tmp_path, "full")
    write_row(tmp_path, "templates_1", offset=10, seconds_per_step=0.01)
    # for the seeds of full the same answers
    write_row(tmp_path, "single_template", seeds=(1, 2, 3))
    return tmp_path


def lines_of(folder):
    """row → its line, without what is NaN."""
    (lines,) = collect_ablations(folder).values()
    lines = lines.set_index("row")
    return {name: line.dropna().to_dict() for name, line in lines.iterrows()}


def test_figures_by_hand(folder, caplog):
    same, full, other = (lines := lines_of(folder)).values()
    assert list(lines) == ["single_template", "full", "templates_1"]
    descriptions = {row.name: row.description for row in ablation_rows("CDC")}
    assert all(line["description"] == descriptions[name] for name, line in lines.items())
    assert "difference" not in full and "lower" not in full
    assert (same["difference"], same["lower"], same["upper"], same["seeds"]) == (0, 0, 0, 3)
    base = [100 * answers(seed)[0].mean() for seed in (11, 12)]
    h, of_full = (
        [harmonic_mean([100 * half.mean() for half in answers(seed)]) for seed in seeds]
        for seeds in ((11, 12), (1, 2))
    )
    for column, values in (("base", base), ("H", h)):
        assert other[f"{column}_mean"] == pytest.approx(statistics.mean(values))
        assert other[f"{column}_std"] == pytest.approx(statistics.stdev(values))
    difference = statistics.mean(h) - statistics.mean(of_full)
    assert other["difference"] == pytest.approx(difference)
    assert other["lower"] < difference < other["upper"]
    costs = ("parameters", "seconds_per_step", "images_per_second")
    assert [same[name] for name in costs] == [1000, 0.02, 92]
    assert [other[name] for name in costs] == [1000, 0.01, 91.5] and not caplog.records


def test_the_table_has_the_figures(folder, capsys):
    """Other formats: test_table.py."""
    row = lines_of(folder)["templates_1"]
    assert call(main, folder) == 0
    text = capsys.readouterr().out
    for figure in ("{difference:+.2f}", "{lower:+.2f} … {upper:+.2f}"):
        assert figure.format(**row) in text
    assert text.split("\n")[2].split()[-3:] == ["1,000", "20.0", "92"]


def test_without_the_full_method_and_without_times_the_cells_are_empty(tmp_path):
    write_row(tmp_path, "views", seeds=(1,), seconds_per_step=None, test_images_per_second=None)
    missing = {"difference", "seconds_per_step", "images_per_second", "H_std"}
    assert not missing & lines_of(tmp_path)["views"].keys()
    write_row(tmp_path, "full", seeds=(2,))  # no seed that both have
    assert "difference" not in lines_of(tmp_path)["views"]


def test_a_folder_that_is_no_row_is_left_out_and_said(folder, caplog):
    write_row(folder, "tiny")
    assert list(lines_of(folder)) == ["single_template", "full", "templates_1"]
    assert "left out: tiny is not a row of CDC's ablation" in caplog.text


def test_trouble_is_one_line(tmp_path, error_of):
    write(tmp_path / "zero", "test_all", "CDC", 1, 50.0, prompts_hash=None)
    write_row(tmp_path / "other", "full", trainer="CoOp")
    for name, message in (("zero", "no row of an ablation"), ("other", "CoOp has no ablation")):
        assert f"error: {message}" in error_of(main, tmp_path / name)


@pytest.mark.parametrize(
    "which, images, message",
    [
        (
            "test_new/**/templates_1/seed2",
            lambda names: names[::-1],
            "or their seeds, were tested on different",
        ),
        ("test_new/**/templates_1/seed2", None, "predictions-test.npz is missing: delete"),
        (
            "train_base/**/templates_1/*",
            lambda names: numpy.char.add("other/", names),
            "templates_1 and full, or their seeds, were tested on different images",
        ),
    ],
)
def test_rows_on_other_images_or_without_answers_are_refused(
    folder, error_of, which, images, message
):
    for path in folder.glob(f"{which}/predictions-test.npz"):
        arrays = dict(numpy.load(path))
        path.unlink()
        if images:
            write_answers(path.parent, "test", {**arrays, "image": images(arrays["image"])})
    assert message in error_of(main, folder)


def test_each_number_of_shots_has_a_table_of_its_own(folder):
    write_row(folder, "full", seeds=(1,), shots=4)
    assert [(title, len(lines)) for title, lines in collect_ablations(folder).items()] == [
        ("CDC on openmoji, 4 shots", 1),
        ("CDC on openmoji, 16 shots", 3),
    ]

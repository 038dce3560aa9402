"""The ablation's table: the bootstrap against a loop and closed forms, the figures by hand, refusals."""

import csv
import io
import json
import statistics

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from analysis.ablation import collect_ablations, interval, main, render_ablation, resampled_h
from protocols.plan import ablation_rows
from results.table import harmonic_mean
from tests.results.conftest import write

SIZES = st.tuples(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1)
)


def rights(generator, seeds, base, new, share=0.6):
    """Made-up (S, N_base) and (S, N_new), whether answers are right."""
    return generator.random((seeds, base)) < share, generator.random((seeds, new)) < share


# ---- the bootstrap ----


@given(SIZES)
@settings(max_examples=30, deadline=None)
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


@given(SIZES)
@settings(max_examples=20, deadline=None)
def test_a_row_does_not_differ_from_itself_and_the_sign_turns_with_the_order(sizes):
    generator = numpy.random.default_rng(sizes[3])
    one, other = rights(generator, *sizes[:3]), rights(generator, *sizes[:3])
    assert interval(one, one, 50) == (0, 0)
    lower, upper = interval(one, other, 50)
    assert lower <= upper and interval(other, one, 50) == pytest.approx((-upper, -lower), abs=1e-9)


def test_images_alone_give_the_quantiles_of_the_binomial_distribution():
    base = (
        numpy.arange(40)[None] < 25
    )  # 25 of 40 right; on new classes all are, so that H grows with the accuracy on base
    full = numpy.zeros((1, 40), dtype=bool), numpy.ones((1, 3), dtype=bool)
    ends = [
        harmonic_mean((100 * binom.ppf(share, 40, 25 / 40) / 40, 100.0)) for share in (0.025, 0.975)
    ]
    assert interval((base, full[1]), full, resamples=50000) == pytest.approx(ends)


def test_seeds_alone_give_the_quantiles_of_the_binomial_distribution():
    right = (
        numpy.arange(6)[:, None] < 4
    )  # 4 of 6 seeds answer everything rightly, the others nothing
    row = numpy.repeat(right, 5, axis=1), numpy.repeat(right, 7, axis=1)
    nothing = numpy.zeros((6, 5), dtype=bool), numpy.zeros((6, 7), dtype=bool)
    ends = [100 * binom.ppf(share, 6, 4 / 6) / 6 for share in (0.025, 0.975)]
    assert interval(row, nothing, resamples=50000) == pytest.approx(ends)


def test_what_makes_an_image_easy_for_both_rows_cancels():
    generator = numpy.random.default_rng(0)
    row = rights(generator, 3, 100, 100)
    one_better = row[0].copy(), row[1]
    one_better[0][:, numpy.flatnonzero(~row[0].any(axis=0))[0]] = (
        True  # one image more, for every seed
    )
    unlike = rights(generator, 3, 100, 100)
    paired, unpaired = interval(one_better, row), interval(unlike, row)
    assert paired[0] == 0 and 0 < paired[1] < 3 < unpaired[1] - unpaired[0]


# ---- the table ----


def write_half(root, part, name, seed, right, trainer="CDC", **changes):
    """One run of a row, which answers those images rightly."""
    classes = "base" if part == "train_base" else "new"
    record = {
        "parameters": {"learnable": 1000, "total": 10**6},
        "seconds_per_step": 0.02 if classes == "base" else None,
        "test_images_per_second": 90.0 + seed,
        **changes,
    }
    folder = write(
        root / name,
        part,
        trainer,
        seed,
        100 * numpy.mean(right),
        classes,
        f"{part} {seed}",
        prompts_hash=f"{name} {seed}",
        **record,
    )
    label = numpy.arange(len(right)) % 5
    numpy.savez(
        folder / "predictions-test.npz",
        image=[f"{classes}/{index}.png" for index in range(len(right))],
        label=label,
        top=(label + ~right)[:, None],
        top_probability=numpy.ones((len(right), 1)),
        max_probability=numpy.zeros(len(right)),
    )
    own = root / part / "openmoji" / "shots_16" / trainer / name / f"seed{seed}"
    own.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(own)


def write_row(root, name, seeds=(1, 2), offset=0, **changes):
    for seed in seeds:
        base, new = rights(numpy.random.default_rng(seed + offset), 1, 50, 40)
        write_half(root, "train_base", name, seed, base[0], **changes)
        write_half(root, "test_new", name, seed, new[0], **changes)


def accuracies(offset, seeds=(1, 2)):
    """Base and new accuracy of each seed, of what ``write_row`` writes."""
    return [
        [100 * right.mean() for right in rights(numpy.random.default_rng(seed + offset), 1, 50, 40)]
        for seed in seeds
    ]


@pytest.fixture
def folder(tmp_path):
    write_row(tmp_path, "full")
    write_row(tmp_path, "templates_1", offset=10, seconds_per_step=0.01)
    # for the seeds of full the same answers
    write_row(tmp_path, "single_template", seeds=(1, 2, 3))
    return tmp_path


def lines_of(folder, number=0):
    """row → its line, without what is NaN."""
    lines = list(collect_ablations(folder).values())[number].set_index("row")
    return {name: line.dropna().to_dict() for name, line in lines.iterrows()}


def test_figures_by_hand(folder, caplog):
    lines = lines_of(folder)
    same, full, other = lines.values()
    assert list(lines) == ["single_template", "full", "templates_1"]
    descriptions = {row.name: row.description for row in ablation_rows("CDC")}
    assert all(line["description"] == descriptions[name] for name, line in lines.items())
    assert list(collect_ablations(folder)) == ["CDC on openmoji, 16 shots"]
    assert "difference" not in full and "lower" not in full
    assert (same["difference"], same["lower"], same["upper"], same["seeds"]) == (0, 0, 0, 3)
    base = [pair[0] for pair in accuracies(10)]
    h = [harmonic_mean(pair) for pair in accuracies(10)]
    of_full = [harmonic_mean(pair) for pair in accuracies(0)]
    for column, values in (("base", base), ("H", h)):
        assert other[f"{column}_mean"] == pytest.approx(statistics.mean(values))
        assert other[f"{column}_std"] == pytest.approx(statistics.stdev(values))
    difference = statistics.mean(h) - statistics.mean(of_full)
    assert other["difference"] == pytest.approx(difference)
    assert other["lower"] < difference < other["upper"]
    costs = ("parameters", "seconds_per_step", "images_per_second")
    assert [same[name] for name in costs] == [1000, 0.02, 92]
    assert [other[name] for name in costs] == [1000, 0.01, 91.5] and not caplog.records


def test_every_format_has_the_figures(folder, capsys):
    def printed(style):
        assert main([str(folder), "--format", style]) == 0
        return capsys.readouterr().out

    row = lines_of(folder)["templates_1"]
    text = printed("text")
    assert f"{row['difference']:+.2f}" in text and "+0.00 … +0.00" in text
    assert f"{row['lower']:+.2f} … {row['upper']:+.2f}" in text
    assert text.split("\n")[2].split()[-3:] == ["1,000", "20.0", "92"]
    rows = {cells["row"]: cells for cells in csv.DictReader(io.StringIO(printed("csv")))}
    assert float(rows["templates_1"]["upper"]) == pytest.approx(row["upper"], abs=1e-4)
    assert rows["full"]["difference"] == "" and rows["full"]["seconds_per_step"] == "0.020000"
    assert float(rows["templates_1"]["H_std"]) == pytest.approx(row["H_std"], abs=1e-4)
    assert "| row" in printed("markdown") and "\\toprule" in printed("latex")
    assert printed("html").startswith("<table>") and "Dempster&#x27;s" in printed("html")


def test_without_the_full_method_and_without_times_the_cells_are_empty(tmp_path):
    write_row(tmp_path, "views", seeds=(1,), seconds_per_step=None, test_images_per_second=None)
    missing = {"difference", "seconds_per_step", "images_per_second", "H_std"}
    assert not missing & lines_of(tmp_path)["views"].keys()
    (made,) = collect_ablations(tmp_path).values()
    assert render_ablation(made).split("\n")[2].split()[-1] == "1,000"
    write_row(tmp_path, "full", seeds=(2,))  # no seed that both have
    assert "difference" not in lines_of(tmp_path)["views"]


def test_a_folder_that_is_no_row_is_left_out_and_said(folder, caplog):
    write_row(folder, "tiny")
    assert list(lines_of(folder)) == ["single_template", "full", "templates_1"]
    assert "left out: tiny is not a row of CDC's ablation" in caplog.text


def test_trouble_is_one_line(folder, tmp_path, capsys):
    def refused(message, root=folder):
        assert main([str(root)]) == 2
        printed = capsys.readouterr().err
        assert message in printed and printed.startswith("error: ") and printed.count("\n") == 1

    refused("no results.json", tmp_path / "nowhere")
    write(tmp_path / "zero", "test_all", "CDC", 1, 50.0, prompts_hash=None)
    refused("no row of an ablation is done", tmp_path / "zero")
    write_row(tmp_path / "other", "full", trainer="CoOp")
    refused("CoOp has no ablation", tmp_path / "other")
    answers = (
        folder
        / "test_new"
        / "openmoji"
        / "shots_16"
        / "CDC"
        / "templates_1"
        / "seed2"
        / "predictions-test.npz"
    )
    arrays = dict(numpy.load(answers))
    numpy.savez(answers, **{**arrays, "image": arrays["image"][::-1]})
    refused("templates_1 and full, or their seeds, were tested on different images")
    answers.unlink()
    refused("predictions-test.npz is missing: delete")


def test_rows_on_other_images_are_refused(folder, capsys):
    for path in folder.glob(
        "train_base/openmoji/shots_16/CDC/templates_1/seed*/predictions-test.npz"
    ):
        arrays = dict(numpy.load(path))
        numpy.savez(path, **{**arrays, "image": numpy.char.add("other/", arrays["image"])})
    assert main([str(folder)]) == 2
    assert (
        "templates_1 and full, or their seeds, were tested on different images"
        in capsys.readouterr().err
    )


def test_each_number_of_shots_has_a_table_of_its_own(folder):
    for part in ("train_base", "test_new"):
        source = folder / part / "openmoji" / "shots_16" / "CDC" / "full" / "seed1"
        target = folder / part / "openmoji" / "shots_4" / "CDC" / "full" / "seed1"
        target.mkdir(parents=True)
        for name in ("results.json", "predictions-test.npz"):
            (target / name).write_bytes((source / name).read_bytes())
        record = json.loads((target / "results.json").read_text())
        (target / "results.json").write_text(json.dumps({**record, "shots": 4}))
    assert {title: len(lines) for title, lines in collect_ablations(folder).items()} == {
        "CDC on openmoji, 4 shots": 1,
        "CDC on openmoji, 16 shots": 3,
    }

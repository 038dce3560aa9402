"""The report's figures: their numbers against textbook loops, what is drawn, and one SVG for light
and for dark pages."""

from collections import Counter

import numpy
import pytest
from matplotlib.figure import Figure

from report.figures import CORRUPTED, answer_figures, vacuity_figures, write_figure
from results import answers as numbers
from results.kept import write_kept
from results.runs import collect, group, with_answers
from results.svg import INKS, PAPERS
from tests.chromium import contrast
from tests.results.conftest import make_answers, write_run
from tests.runs import change_record, record_of


def series_of(folder):
    """Series that have answers."""
    return with_answers(group(collect(folder)))


def drawn(figure):
    axes = Figure().subplots()
    figure.draw(axes)
    return axes


# ---- numbers ----


def test_risk_coverage_is_the_mean_of_the_seeds_curves_interpolated_where_one_has_fewer_images():
    uncertainties = [numpy.array([0.1, 0.4, 0.2, 0.3]), numpy.array([3.0, 1.0])]
    wrongs = [numpy.array([False, True, True, False]), numpy.array([True, False])]
    coverage, risk = numbers.risk_coverage(uncertainties, wrongs)
    first = [0, 1 / 2, 1 / 3, 2 / 4]  # images by uncertainty: 0 2 3 1
    second = [0, 0, 1 / 4, 1 / 2]  # 0 at half, 1/2 at all
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([(a + b) / 2 for a, b in zip(first, second)])


def test_histogram_counts_by_factors_and_leaves_out_groups_without_images():
    right, wrong = numpy.array([0.001, 0.002, 0.05, 1.0]), numpy.array([0.5, 0.0011])
    groups = {"right": right, "wrong": wrong, "none": numpy.array([])}
    edges, shares = numbers.histogram(groups, bins=3)
    assert edges == pytest.approx([0.001, 0.01, 0.1, 1])
    assert list(shares) == ["right", "wrong"]
    assert shares["right"].tolist() == [50, 25, 25]
    assert shares["wrong"].tolist() == [50, 0, 50]


@pytest.mark.parametrize("values", [[0.0, 0.5], [0.25, 0.25]])
def test_a_histogram_of_zero_or_of_one_value_is_whole(values):
    edges, shares = numbers.histogram({"all": numpy.array(values, dtype="float32")})
    assert numpy.isfinite(edges).all()
    assert shares["all"].sum() == pytest.approx(100)


# ---- what is drawn ----


def test_series_pool_their_seeds_and_figures_show_the_pooled_numbers(tmp_path):
    parts = [make_answers(seed, templates=3) for seed in (1, 2)]
    for seed, arrays in enumerate(parts, 1):
        write_run(tmp_path, "train_base", "CDC", seed, "base", arrays)
    (one,) = series_of(tmp_path)
    right = numpy.concatenate([part["top"][:, 0] == part["label"] for part in parts])
    sure = numpy.concatenate([part["top_probability"][:, 0] for part in parts])
    reliability = next(answer_figures([one], {"CDC tiny": "C0"}))
    points = 100 * numbers.reliability_points(sure, right, bins=8)
    assert numpy.allclose(drawn(reliability).lines[1].get_xydata(), points)
    labels = drawn(next(vacuity_figures([one]))).get_legend_handles_labels()[1]
    assert labels == [f"right ({right.sum()})", f"wrong ({80 - right.sum()})"]


def test_new_classes_and_corrupted_images_join_the_vacuities_once_all_seeds_have_them(tmp_path):
    new = numpy.random.default_rng(5).uniform(0.01, 1, (2, 7))
    strengths = numpy.full((40, 5), [0.1, 0.2, 0.3, 0.4, 0.5]).T
    folders = [
        write_run(tmp_path, "train_base", "CDC", seed, "base", make_answers(seed, templates=2))
        for seed in (1, 2)
    ]
    for folder, part in zip(folders, new):
        figure = next(vacuity_figures(series_of(tmp_path)))
        assert "new classes," not in figure.alt
        arrays = {"new_vacuity": part, "corrupted_vacuity": strengths}
        write_kept(folder, record_of(folder), {}, arrays)
    figure = next(vacuity_figures(series_of(tmp_path)))
    labels = drawn(figure).get_legend_handles_labels()[1]
    assert labels[2:] == ["new classes (14)", f"{CORRUPTED} (80)"]
    assert f"14 new classes, median {numpy.median(new):.2g}" in figure.alt
    assert "80 corrupted, severity 3, median 0.3" in figure.alt
    change_record(folders[1], finished="later")
    figure = next(vacuity_figures(series_of(tmp_path)))
    assert "new classes," not in figure.alt, "they belong to the run as it was"


# ---- light and dark ----


def rgb(colour):
    return f"rgb{tuple(bytes.fromhex(colour[1:]))}"


def test_a_figure_is_one_svg_without_paper_in_an_ink_that_stands_out_in_both_themes(tmp_path):
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base", make_answers(1))
    figure = next(answer_figures(series_of(tmp_path / "runs"), {"CDC tiny": "C0"}))
    write_figure(figure, f"{tmp_path}/out", Counter())
    svg = (tmp_path / "out/reliability-openmoji-base-classes.svg").read_text()
    assert "stroke: currentColor" in svg
    assert "#ffffff" not in svg
    for theme, paper in PAPERS.items():
        assert f"svg{{color:{INKS[theme]}}}" in svg
        assert contrast(rgb(INKS[theme]), rgb(paper)) > 10

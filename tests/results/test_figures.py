"""The report's figures: their numbers against textbook loops, what is drawn, and one SVG for light
and for dark pages."""

from collections import Counter

import numpy
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from results import answers as numbers
from results.kept import write_figures
from results.report.figures import (
    CORRUPTED,
    INKS,
    PAPERS,
    STYLE,
    answer_figures,
    draw_vacuities,
    vacuity_figures,
    write_figure,
)
from results.runs import collect, group, with_answers
from tests.chromium import contrast
from tests.results.conftest import make_answers, write_run
from tests.runs import change_record, record_of


def series_of(*folders):
    """Series that have answers."""
    return with_answers(group(collect(*folders)))


def drawn(figure):
    axes = Figure().subplots()
    figure.draw(axes)
    return axes


# ---- numbers ----


def test_risk_coverage_is_the_mean_of_the_seeds_curves_interpolated_where_one_has_fewer_images():
    doubts = [numpy.array([0.1, 0.4, 0.2, 0.3]), numpy.array([3.0, 1.0])]
    wrongs = [numpy.array([False, True, True, False]), numpy.array([True, False])]
    coverage, risk = numbers.risk_coverage(doubts, wrongs)
    first = [0, 1 / 2, 1 / 3, 2 / 4]  # images by doubt: 0 2 3 1
    second = [0, 0, 1 / 4, 1 / 2]  # 0 at half, 1/2 at all
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([(a + b) / 2 for a, b in zip(first, second)])


def test_histogram_counts_by_factors_and_leaves_out_groups_without_images():
    groups = {"right": [0.001, 0.002, 0.05, 1.0], "wrong": [0.5, 0.0011], "none": []}
    groups = {name: numpy.array(part) for name, part in groups.items()}
    edges, shares = numbers.histogram(groups, bins=3)
    assert edges == pytest.approx([0.001, 0.01, 0.1, 1]) and list(shares) == ["right", "wrong"]
    assert shares["right"].tolist() == [50, 25, 25] and shares["wrong"].tolist() == [50, 0, 50]
    for part in ([0.0, 0.5], [0.25, 0.25], [0.25]):  # zero, or all the same
        edges, shares = numbers.histogram({"all": numpy.array(part, dtype="float32")})
        assert numpy.isfinite(edges).all() and shares["all"].sum() == pytest.approx(100)


# ---- what is drawn ----


def test_series_pool_their_seeds_and_figures_show_the_pooled_numbers(tmp_path):
    parts = [make_answers(seed, templates=3) for seed in (1, 2)]
    for seed, arrays in enumerate(parts, 1):
        write_run(tmp_path, "train_base", "CDC", seed, "base", arrays)
    (one,) = series_of(tmp_path)
    top, label, vacuity, sure = (
        numpy.concatenate([arrays[name] for arrays in parts])
        for name in ("top", "label", "vacuity", "top_probability")
    )
    right = top[:, 0] == label
    assert (one.pooled("right") == right).all() and (one.pooled("vacuity") == vacuity).all()
    reliability = next(answer_figures([one], {"CDC tiny": "C0"}))
    points = 100 * numbers.reliability_points(sure[:, 0], right, bins=8)
    assert numpy.allclose(drawn(reliability).lines[1].get_xydata(), points)
    labels = drawn(next(vacuity_figures([one]))).get_legend_handles_labels()[1]
    assert labels == [f"right ({right.sum()})", f"wrong ({80 - right.sum()})"]
    for run in one.runs:  # eighteen images carry one point, which is no line
        run.answers.update({name: array[..., :9] for name, array in run.answers.items()})
    assert [figure.name.split()[0] for figure in answer_figures([one], {})] == ["risk"]


@pytest.mark.parametrize("decades", [1, 3, 8, 14])
def test_the_labels_of_a_vacuity_axis_do_not_run_into_one_another(decades):
    with rc_context(STYLE):
        axes = Figure().subplots()
        draw_vacuities(axes, {"right": numpy.logspace(-decades, 0, 99), "wrong": numpy.ones(1)})
        axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    shown = [
        axes.get_xticklabels()[i] for i, at in enumerate(axes.get_xticks()) if low <= at <= high
    ]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) > 1 and all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))


def test_new_classes_and_corrupted_images_join_the_vacuities_once_all_seeds_have_them(tmp_path):
    def figure():
        made = next(vacuity_figures(series_of(tmp_path)))
        return made, drawn(made).get_legend_handles_labels()[1]

    folders = [
        write_run(tmp_path, "train_base", "CDC", seed, "base", make_answers(seed, templates=2))
        for seed in (1, 2)
    ]
    new = numpy.random.default_rng(5).uniform(0.01, 1, (2, 7))
    for folder, part in zip(folders, new):
        made, labels = figure()
        assert len(labels) == 2 and "python -m analysis.uncertainty" in made.reading
        strengths = numpy.full((40, 5), [0.1, 0.2, 0.3, 0.4, 0.5]).T
        record = record_of(folder)
        write_figures(folder, record, {}, {"new_vacuity": part, "corrupted_vacuity": strengths})
    made, labels = figure()
    assert labels[2:] == ["new classes (14)", f"{CORRUPTED} (80)"]
    assert f"14 new classes, median {numpy.median(new):.2g}" in made.alt
    assert "80 corrupted, severity 3, median 0.3" in made.alt
    change_record(folders[1], finished="later")
    assert len(figure()[1]) == 2, "they belong to the run as it was"


# ---- light and dark ----


def rgb(colour):
    return f"rgb{tuple(bytes.fromhex(colour[1:]))}"


def test_a_figure_is_one_svg_without_paper_in_an_ink_that_stands_out_in_both_themes(tmp_path):
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base", make_answers(1))
    figure = next(answer_figures(series_of(tmp_path / "runs"), {"CDC tiny": "C0"}))
    taken = Counter()
    first, second = (write_figure(figure, f"{tmp_path}/out", taken) for _ in range(2))
    names = {f"reliability-openmoji-base-classes{number}.svg" for number in ("", "-2")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names and first == second
    svg = (tmp_path / "out" / min(names)).read_text()
    assert "fill: currentColor" in svg and "stroke: currentColor" in svg and "#ffffff" not in svg
    for theme, paper in PAPERS.items():
        assert f"svg{{color:{INKS[theme]}}}" in svg
        assert contrast(rgb(INKS[theme]), rgb(paper)) > 10
        # WCAG, of graphics
        colours = STYLE["axes.prop_cycle"].by_key()["color"]
        assert all(contrast(rgb(colour), rgb(paper)) >= 3 for colour in colours)
    resvg = pytest.importorskip("resvg_py")
    assert resvg.svg_to_bytes(svg_string=svg, dpi=96, skip_system_fonts=True)[:4] == b"\x89PNG"

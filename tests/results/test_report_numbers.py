"""What the report counts, orders and finds: its numbers against textbook loops."""

import base64
import io
import json
import statistics
from pathlib import Path

import numpy
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from PIL import Image

from analysis.image_groups import write_figures
from analysis.inspection import inspect_all
from results import answers as numbers
from results.report.figures import (
    CORRUPTED,
    GROUPS,
    answer_figures,
    same_prompts,
    table_figures,
    vacuity_figures,
)
from results.report.gallery import find_images, gallery
from results.report.page import make_report, measured_tables, protocol_tables
from results.report.template_figures import template_figures
from results.runs import find_runs, group, titles, training_curve, with_answers
from results.table import collect
from tests.results.conftest import make_answers, write_curve, write_run


def series_of(*folders):
    """Series that have answers, and how their settings are called."""
    runs = find_runs(folders)
    return with_answers(group(runs)), titles([run.setting for run in runs])


# ---- the numbers behind the figures ----


@pytest.mark.parametrize("images", [100, 31, 7])
def test_reliability_points_are_the_textbook_loop(images):
    generator = numpy.random.default_rng(images)
    confidence, right = (
        generator.uniform(size=images).astype("float32"),
        generator.integers(0, 2, images).astype(bool),
    )
    rows = sorted(zip(confidence.tolist(), right.tolist()))
    bins, expected = min(15, images), []
    for size in [images // bins + (number < images % bins) for number in range(bins)]:
        inside, rows = rows[:size], rows[size:]
        expected.append([statistics.mean(c for c, _ in inside), sum(r for _, r in inside) / size])
    assert numpy.allclose(numbers.reliability_points(confidence, right), expected, rtol=1e-12)


def test_risk_coverage_is_the_mean_of_the_seeds_curves():
    doubts = [numpy.array([0.1, 0.4, 0.2, 0.3]), numpy.array([3.0, 1.0, 2.0, 4.0])]
    wrongs = [numpy.array([False, True, True, False]), numpy.array([True, False, False, True])]
    coverage, risk = numbers.risk_coverage(doubts, wrongs)
    first, second = (
        [0, 1 / 2, 1 / 3, 2 / 4],
        [0, 0, 1 / 3, 2 / 4],
    )  # images by doubt: 0 2 3 1, and 1 2 0 3
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([(a + b) / 2 for a, b in zip(first, second)])


def test_a_seed_with_fewer_images_is_interpolated_between_its_points():
    coverage, risk = numbers.risk_coverage(
        [numpy.arange(4.0), numpy.arange(2.0)], [numpy.zeros(4, bool), numpy.array([False, True])]
    )
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1] and risk == pytest.approx(
        [0, 0, 0.25 / 2, 0.5 / 2]
    )


def test_histogram_counts_by_factors_and_leaves_out_groups_without_images():
    values = {
        "right": numpy.array([0.001, 0.002, 0.05, 1.0]),
        "wrong": numpy.array([0.5, 0.0011]),
        "none": numpy.array([]),
    }
    edges, shares = numbers.histogram(values, bins=3)
    assert edges == pytest.approx([0.001, 0.01, 0.1, 1]) and list(shares) == ["right", "wrong"]
    assert shares["right"].tolist() == [50, 25, 25] and shares["wrong"].tolist() == [50, 0, 50]


@pytest.mark.parametrize("values", [[0.0, 0.5], [0.25, 0.25], [0.25]])
def test_histogram_takes_vacuities_that_are_zero_or_all_the_same(values):
    edges, shares = numbers.histogram({"all": numpy.array(values, dtype="float32")})
    assert numpy.isfinite(edges).all() and shares["all"].sum() == pytest.approx(100)


def test_agreement_is_the_share_of_images_with_the_same_class():
    votes, answer, label = (
        numpy.array([[0, 1, 2, 0], [0, 1, 1, 1]]),
        numpy.array([0, 1, 2, 1]),
        numpy.array([0, 0, 2, 2]),
    )
    said = [*votes.tolist(), answer.tolist(), label.tolist()]
    expected = [
        [100 * sum(a == b for a, b in zip(one, other)) / 4 for other in said] for one in said
    ]
    assert numbers.agreement(votes, answer, label).tolist() == expected
    assert expected[0] == [100, 50, 75, 50]


def test_series_pool_their_seeds_and_figures_show_the_pooled_numbers(tmp_path):
    parts = {seed: make_answers(seed, templates=3) for seed in (2, 1)}
    for seed, arrays in parts.items():
        write_run(tmp_path, "train_base", "CDC", seed, "base", arrays)
    (one,), named = series_of(tmp_path)
    assert one.pooled("vacuity").tolist() == [
        *parts[1]["vacuity"].tolist(),
        *parts[2]["vacuity"].tolist(),
    ]
    assert one.right.tolist() == [
        top == label
        for seed in (1, 2)
        for top, label in zip(parts[seed]["top"][:, 0], parts[seed]["label"])
    ]
    lines, _ = next(iter(answer_figures([one], named, {}))).draw.args
    confidence = numpy.concatenate([parts[seed]["top_probability"][:, 0] for seed in (1, 2)])
    assert numpy.allclose(lines["CDC tiny"], numbers.reliability_points(confidence, one.right))
    matrix, labels, _ = next(iter(template_figures([one], named, {}))).draw.args
    votes = numpy.hstack([parts[1]["vote"], parts[2]["vote"]])
    assert labels == ["1", "2", "3", "answer", "truth"]
    assert matrix[0, 1] == pytest.approx(100 * (votes[0] == votes[1]).mean()) and matrix[
        -2, -1
    ] == pytest.approx(100 * one.right.mean())
    edges, shares, _, _ = next(iter(vacuity_figures([one], named))).draw.args
    assert list(shares) == [f"right ({one.right.sum()})", f"wrong ({(~one.right).sum()})"]
    assert shares[f"right ({one.right.sum()})"].sum() == pytest.approx(100)


def test_new_classes_and_corrupted_images_join_the_vacuities_once_they_are_measured(tmp_path):
    folders = {
        seed: write_run(
            tmp_path, "train_base", "CDC", seed, "base", make_answers(seed, templates=2)
        )
        for seed in (1, 2)
    }

    def figure():
        return next(iter(vacuity_figures(*series_of(tmp_path))))

    generator, strengths, measured = numpy.random.default_rng(5), [0.1, 0.2, 0.3, 0.4, 0.5], {}
    for seed, folder in folders.items():
        assert (
            len(figure().draw.args[1]) == 2 and "python -m analysis.uncertainty" in figure().reading
        )  # all seeds need to have them
        measured[seed] = {
            "new_vacuity": generator.uniform(0.01, 1, 7),
            "corrupted_vacuity": numpy.full((40, 5), strengths).T,
        }
        write_figures(folder, json.loads((folder / "results.json").read_text()), {}, measured[seed])
    edges, shares, _, paints = figure().draw.args
    right = series_of(tmp_path)[0][0].right.sum()
    assert list(shares) == [
        f"right ({right})",
        f"wrong ({80 - right})",
        "new classes (14)",
        f"{CORRUPTED} (80)",
    ]
    assert list(paints.values()) == list(GROUPS.values()) and "python" not in figure().reading
    assert (
        shares[f"{CORRUPTED} (80)"][numpy.searchsorted(edges, 0.3) - 1] == 100
        and "severity 3" in CORRUPTED
    )
    median = numpy.median(numpy.concatenate([one["new_vacuity"] for one in measured.values()]))
    assert f"14 new classes, median {median:.2g}" in figure().alt
    record = json.loads((folders[2] / "results.json").read_text())
    (folders[2] / "results.json").write_text(json.dumps({**record, "finished": "later"}))
    assert len(figure().draw.args[1]) == 2  # they belong to the run as it was


def test_vacuities_are_compared_where_the_same_prompts_were_tested(tmp_path):
    for part, classes, trainer in (
        ("train_base", "base", "CDC"),
        ("test_new", "new", "CDC"),
        ("train_source", "all", "CDC"),
    ):
        write_run(
            tmp_path,
            part,
            trainer,
            1,
            classes,
            make_answers(1, templates=2),
            prompts_hash="trained on all" if part == "train_source" else "trained on base",
        )
    series, named = series_of(tmp_path)
    groups = same_prompts(series)
    assert [[one.setting[1] for one in members] for members in groups] == [["all"], ["base", "new"]]
    (by_data,) = [
        figure
        for figure in vacuity_figures(series, named)
        if figure.name.startswith("vacuity by data")
    ]
    assert list(by_data.draw.args[1]) == ["openmoji, base classes", "openmoji, new classes"]


def test_measured_tables_have_a_row_for_each_model_and_measure(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "train_base", "CDC", seed, "base", make_answers(seed))
    calibration, doubt = measured_tables(*series_of(tmp_path))
    (row,) = calibration.rows
    assert row.key == ("openmoji, base classes", "CDC tiny")
    assert calibration.figures(row) == {
        "accuracy": [56, 59],
        "ECE": [11, 12],
        "adaptive ECE": [12, 13],
        "NLL": [2, 3],
        "Brier": [0.5, 0.5],
    }
    (row,) = doubt.rows  # energy has no error AUROC
    assert row.key == ("openmoji, base classes", "CDC tiny", "max probability")
    assert doubt.figures(row) == {"AURC": [21, 22], "error AUROC": [71, 72]}


def test_bars_of_one_model_with_several_shots_are_told_apart(tmp_path):
    for shots in (4, 16):
        for part, classes in (("train_base", "base"), ("test_new", "new")):
            write_run(tmp_path, part, "CDC", 1, classes, shots=shots, prompts_hash=str(shots))
    (bars,) = table_figures(collect(tmp_path), {"CDC tiny": "C0"})
    axes = Figure().subplots()
    bars.draw(axes)
    assert [handle.get_label() for handle in axes.containers if handle.get_label()[0] != "_"] == [
        "CDC tiny, 4 shots",
        "CDC tiny, 16 shots",
    ]
    colours = [
        handle.patches[0].get_facecolor()
        for handle in axes.containers
        if isinstance(handle, BarContainer)
    ]
    heights = [
        [patch.get_height() for patch in handle]
        for handle in axes.containers
        if isinstance(handle, BarContainer)
    ]
    assert len(set(colours)) == 2 and heights == [[56, 56, 56], [56, 56, 56]]


# ---- the gallery ----


def test_gallery_order_and_what_stands_on_a_card(tmp_path):
    arrays = {
        "image": numpy.array([f"a/{name}.png" for name in "uvwxyz"]),
        "label": numpy.array([0, 0, 1, 1, 2, 2]),
        "top": numpy.array([[0, 1], [1, 0], [0, 1], [1, 2], [5, 2], [0, 2]]),
        "top_probability": numpy.full((6, 2), 0.5, "float32"),
        "max_probability": numpy.array([0.9, 0.3, 0.1, 0.2, 0.3, 0.8], "float32"),
        "vacuity": numpy.full(6, 0.5, "float32"),
        "vote": numpy.array([[0, 1, 0, 1, 2, 0], [1, 1, 0, 1, 5, 0]]),
        "vote_probability": numpy.tile([[0.25], [0.75]], (1, 6)),
    }
    write_run(tmp_path, "train_base", "CDC", 1, "base", arrays, names=("cat", "dog", "eel"))
    (run,) = find_runs([tmp_path])
    shown = gallery(run, {})
    assert shown["measure"] == "1 − probability"
    mistakes, doubted = (
        shown["kinds"]["Most certain mistakes"],
        shown["kinds"]["Most doubted images"],
    )
    assert [card["image"] for card in mistakes] == [
        "a/w.png",
        "a/v.png",
        "a/y.png",
        "a/z.png",
    ]  # v before y: equal, in their order
    assert [card["image"] for card in doubted] == [
        "a/u.png",
        "a/z.png",
        "a/v.png",
        "a/y.png",
        "a/x.png",
        "a/w.png",
    ]
    assert [card["right"] for card in doubted] == [True, False, False, False, True, False]
    assert mistakes[2] == {
        "image": "a/y.png",
        "picture": None,
        "truth": "eel",
        "answer": "class 5",
        "probability": 50,
        "right": False,
        "doubt": pytest.approx(0.3),
        "votes": [("eel", 25), ("class 5", 75)],
    }


def test_without_templates_the_gallery_has_no_votes(tmp_path):
    arrays = make_answers(3)
    write_run(tmp_path, "train_base", "CoOp", 1, "base", arrays)
    (run,) = find_runs([tmp_path])
    shown = gallery(run, {})
    wrong = [
        index
        for index in numpy.argsort(arrays["max_probability"])
        if arrays["top"][index, 0] != arrays["label"][index]
    ]
    cards = shown["kinds"]["Most certain mistakes"]
    assert (
        shown["measure"] == "1 − probability"
        and [card["image"] for card in cards] == arrays["image"][wrong[:8]].tolist()
    )
    assert all(card["votes"] == [] for card in cards)


def test_pictures_are_those_of_the_test_images(tmp_path, data_root):
    names = ("banded", "dotted", "striped", "woven", "zigzagged", "grid")
    arrays = {**make_answers(0, 6, 6), "image": numpy.array([f"{name}/11.png" for name in names])}
    write_run(
        tmp_path, "train_all", "CoOp", 1, arrays=arrays, names=names, dataset="DescribableTextures"
    )
    (run,) = find_runs([tmp_path])
    pixels = {
        path: numpy.asarray(Image.open(path), float)
        for path in (Path(data_root) / "dtd" / "images").rglob("*.png")
    }
    for card in gallery(run, find_images(run, data_root))["kinds"]["Most doubted images"]:
        kind, content = card["picture"].split(",")
        assert kind == "data:image/jpeg;base64"
        shown = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(content))), float)
        nearest = min(pixels, key=lambda path: numpy.abs(pixels[path] - shown).mean())
        assert "/".join(nearest.parts[-2:]) == card["image"]


def test_pictures_that_are_not_there_are_said_not_shown(tmp_path, data_root):
    write_run(
        tmp_path / "runs",
        "train_all",
        "CoOp",
        1,
        arrays=make_answers(0),
        dataset="DescribableTextures",
    )
    write_run(
        tmp_path / "runs", "train_all", "MaPLe", 1, arrays=make_answers(0), dataset="OxfordPets"
    )
    write_run(
        tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(0), dataset="SomebodysOwn"
    )
    make_report([tmp_path / "runs"], tmp_path / "page.html", inspect_all, data_root)
    page = (tmp_path / "page.html").read_text()
    assert "data:image/jpeg" not in page
    assert (
        "no pictures of OxfordPets: data folder" in page
        and "SomebodysOwn is no data set of this toolbox" in page
    )


# ---- which runs there are ----


def test_a_run_is_found_by_its_own_folder_and_once_if_given_twice(tmp_path):
    folder = write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1))
    write_run(tmp_path, "test_new", "CDC", 1, "new")
    (run,) = find_runs([folder])
    assert (run.setting, run.model, run.answers["label"].shape) == (
        ("openmoji", "base", 16),
        "CDC tiny",
        (40,),
    )
    assert len(find_runs([folder, tmp_path, folder])) == 2
    assert (
        protocol_tables([run], [folder]) == []
    )  # a table of base and new needs more than the one run


def test_a_model_that_is_there_twice_is_told_apart_by_its_place(tmp_path):
    for place in ("old", "young"):
        write_run(tmp_path / place, "train_base", "CDC", 1, "base", make_answers(1))
    write_run(tmp_path / "old", "train_base", "CoOp", 1, "base", make_answers(1))
    write_run(tmp_path / "old", "train_all", "CDC", 1, "all", make_answers(1))
    write_run(tmp_path / "old", "train_source", "CDC", 1, "all", make_answers(1))
    assert [one.name for one in series_of(tmp_path)[0]] == [
        "CDC tiny (train_all)",
        "CDC tiny (train_source)",
        "CDC tiny (old/train_base)",
        "CoOp tiny",
        "CDC tiny (young/train_base)",
    ]


def test_runs_made_by_hand_are_called_by_their_folder(tmp_path):
    record = json.loads(
        (write_run(tmp_path / "made", "train_base", "CDC", 1, "base") / "results.json").read_text()
    )
    for name, seed in (("mine/seed1", 1), ("mine/seed2", 2), ("other", 1)):
        (tmp_path / "hand" / name).mkdir(parents=True)
        (tmp_path / "hand" / name / "results.json").write_text(json.dumps({**record, "seed": seed}))
    assert [(one.name, len(one.runs)) for one in group(find_runs([tmp_path / "hand"]))] == [
        ("CDC mine", 2),
        ("CDC other", 1),
    ]


def test_titles_say_shots_only_where_they_differ():
    assert titles([("dtd", "base", 16), ("dtd", "all", 16)]) == {
        ("dtd", "base", 16): "dtd, base classes",
        ("dtd", "all", 16): "dtd",
    }
    assert list(titles([("dtd", "all", 1), ("dtd", "all", 4), ("dtd", "all", -1)]).values()) == [
        "dtd, 1 shot",
        "dtd, 4 shots",
        "dtd, no few-shot sample",
    ]


def test_training_curves_are_the_epochs_means_and_of_lines_of_an_epoch_the_last_counts(tmp_path):
    (run,) = find_runs([write_run(tmp_path, "train_base", "CDC", 1, "base")])
    assert training_curve(run) == {}
    write_curve(run.folder, (1, 9.0, 10.0), (1, 8.0, 20.0), (2, 7.0, 30.0))
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "epochs": 2, "loss": 77')  # a killed run's last line
    write_curve(run.folder, (2, 6.0, 40.0))
    assert training_curve(run) == {"loss": {1: 8.0, 2: 6.0}, "acc": {1: 20.0, 2: 40.0}}


def test_the_three_tests_of_a_factor_are_settings_of_their_own(tmp_path):
    for part in ("train_biased", "test_independent", "test_reversed"):
        write_run(tmp_path, part, "CDC", 1, "base")
    assert {run.setting[0] for run in find_runs([tmp_path])} == {
        "openmoji aligned",
        "openmoji independent",
        "openmoji reversed",
    }

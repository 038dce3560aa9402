"""Whether templates differ: the numbers against textbook loops and closed forms, and real runs."""

import csv
import io
import json

import numpy
import pytest
import torch
from PIL import Image, ImageOps

from analysis import occlusion
from analysis.occlusion import GREY, PATCH, PLACES, SIDE, STEP, occlusion_figures, occlusion_map
from analysis.templates import agreement, kappa, main, oracle
from protocols import training as train
from protocols.command_line import parse_arguments
from results.report.page import make_report
from results.runs import collect, group
from tests.conftest import base_arguments
from tests.results.conftest import Page, make_answers, write_run
from tests.trainers.test_every_trainer import BASE, NEW
from trainers import PromptedClassifier


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, data_root, small_clip_file):
    """Base to new of the miniature: CDC with two seeds, CoOp with one; where the protocol puts them."""
    root = tmp_path_factory.mktemp("base2new")

    def start(part, name, seed, *more):
        folder = root / part / "dtd" / "shots_4" / name / "small" / f"seed{seed}"
        arguments = base_arguments(name, data_root, small_clip_file, folder, seed)
        what = {"protocol": "base2new", "part": part, "dataset": "dtd", "recipe": "small"}
        train.run(parse_arguments([*arguments, "--run", json.dumps(what), *more]))
        return str(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "collect_env_info", lambda: "left out in tests")
        for name, seed in (("CDC", 1), ("CDC", 2), ("CoOp", 1)):
            trained = start("train_base", name, seed, *BASE)
            start("test_new", name, seed, "--eval-only", "--model-dir", trained, *NEW)
    return root


@pytest.fixture
def tables(capsys):
    """Runs the command and returns title → list of rows, dicts by column."""

    def start(*arguments):
        assert main([*map(str, arguments), "--format", "csv"]) == 0
        parts = capsys.readouterr().out.split("\n\n")
        return {
            title.strip(): list(csv.DictReader(io.StringIO(body)))
            for title, body in zip(parts[::2], parts[1::2])
        }

    return start


# ---- numbers ----


def test_agreement_is_the_share_of_images_with_the_same_class():
    votes = numpy.array([[0, 1, 2, 0], [0, 1, 1, 1]])
    answer, label = numpy.array([0, 1, 2, 1]), numpy.array([0, 0, 2, 2])
    rows = [*votes.tolist(), answer.tolist(), label.tolist()]
    expected = [[25 * sum(map(int.__eq__, one, other)) for other in rows] for one in rows]
    assert agreement(votes, answer, label).tolist() == expected
    assert expected[0] == [100, 50, 75, 50]


def test_kappa_is_cohens_formula_and_one_for_copies_even_of_one_class():
    generator = numpy.random.default_rng(1)
    votes = numpy.vstack([generator.integers(0, 3, (3, 50)), numpy.ones((2, 50), int)])

    def cohen(one, other):
        chance = sum((one == label).mean() * (other == label).mean() for label in range(3))
        return ((one == other).mean() - chance) / (1 - chance)

    found = kappa(votes)
    expected = [[cohen(one, other) for other in votes[:3]] for one in votes[:3]]
    assert found[:3, :3] == pytest.approx(numpy.array(expected))
    assert found[3, 4] == 1 and found[3, 0] == pytest.approx(0)


def test_the_oracle_needs_one_right_vote():
    votes = numpy.array([[0, 1, 2, 0], [1, 1, 1, 1]])
    assert oracle(votes, numpy.array([0, 1, 0, 1])) == 75


def test_of_a_linear_model_the_map_is_the_weighted_sum_below_the_patch():
    generator = numpy.random.default_rng(0)
    pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype="uint8")
    weights = generator.normal(size=(2, SIDE, SIDE, 3))

    def predict(pictures):  # (N, M = 2, K = 1)
        return numpy.array(
            [[[(numpy.asarray(p, float) * w).sum()] for w in weights] for p in pictures]
        )

    drops = occlusion_map(predict, Image.fromarray(pixels), 0)
    assert drops.shape == (2, PLACES, PLACES) and PLACES * STEP == SIDE - PATCH + STEP
    for row, column in ((0, 0), (3, 1), (PLACES - 1, PLACES - 1)):
        below = numpy.s_[row * STEP : row * STEP + PATCH, column * STEP : column * STEP + PATCH]
        lost = ((pixels[below].astype(float) - GREY) * weights[(slice(None), *below)]).sum(
            (1, 2, 3)
        )
        assert drops[:, row, column] == pytest.approx(lost, rel=1e-6)


# ---- real runs ----


def test_tables_have_the_runs_own_figures_and_mean_and_deviation_over_seeds(
    protocol, tables, caplog
):
    found = tables(protocol)
    assert list(found) == [
        "Templates before and after training",
        "Accuracy of 4 templates",
        "Agreement of the votes in %",
        "Cohen's kappa of the votes",
    ]

    def records(part):
        folder = protocol / part / "dtd/shots_4/CDC/small"
        return [json.loads((folder / f"seed{n}/results.json").read_text()) for n in (1, 2)]

    # of the trainings alone
    moved = {row["100 × cosine"]: row for row in found["Templates before and after training"]}
    after = [record["learned"]["images_deviations_after"] for record in records("train_base")]
    shown = moved["images, between deviations from CLIP's own"]["after_mean"]
    assert float(shown) == pytest.approx(100 * numpy.mean(after), abs=1e-3)
    for row, part in zip(found["Accuracy of 4 templates"], ("train_base", "test_new"), strict=True):
        metrics = [record["metrics"]["test"] for record in records(part)]
        figures = {"fused": [one["accuracy"] for one in metrics]}
        for m in range(4):
            figures[f"S{m + 1}"] = [one["template_accuracy"][m] for one in metrics]
        for column, values in figures.items():
            assert float(row[f"{column}_mean"]) == pytest.approx(numpy.mean(values), abs=1e-3)
            assert float(row[f"{column}_std"]) == pytest.approx(numpy.std(values, ddof=1), abs=1e-3)
            assert float(row["oracle_mean"]) >= float(row[f"{column}_mean"]) or column == "fused"
        assert (row["seeds"], row["model"]) == ("2", "CDC small")
    assert [text for text in caplog.messages if text.startswith("left out")] == [
        f"left out: CoOp small, dtd, {classes} classes, has no votes of several templates"
        for classes in ("base", "new")
    ]


def test_where_templates_look_is_drawn_of_trainings_in_the_report(protocol, data_root, tmp_path):
    make_report([protocol], tmp_path / "page.html", occlusion_figures, data_root)
    alternatives = [image["alt"] for image in Page(tmp_path / "page.html").all("img")]
    (alt,) = [text for text in alternatives if text.startswith("Occlusion maps of")]
    assert "CDC small, dtd, base classes, seed 1. Largest fall" in alt
    (figure,) = (tmp_path / "page_figures").glob("occlusion*")
    assert figure.name == "occlusion-dtd-base-classes-cdc-small.svg"


def test_maps_are_of_the_least_doubted_right_answers_one_a_class(protocol, data_root, monkeypatch):
    folder = protocol / "train_base/dtd/shots_4/CDC/small/seed1"
    (run,) = collect(folder)
    paths = {name: f"{data_root}/dtd/images/{name}" for name in run.answers["image"].tolist()}
    classes = {}
    for index in numpy.argsort(run.answers["max_probability"]):
        label = int(run.answers["label"][index])
        if run.answers["top"][index, 0] == label:
            classes.setdefault(label, str(run.answers["image"][index]))
    maps = occlusion.occlusions(run, paths)
    classifier = PromptedClassifier.load(folder)
    assert [name for name, _, _ in maps] == [classifier.classnames[label] for label in classes]
    picture = ImageOps.fit(
        Image.open(paths[list(classes.values())[0]]).convert("RGB"), (SIDE, SIDE)
    )
    assert maps[0][1].tobytes() == picture.tobytes()
    covered = picture.copy()
    covered.paste(GREY, (2 * STEP, STEP, 2 * STEP + PATCH, STEP + PATCH))
    votes = torch.as_tensor(classifier.predict([picture, covered]).votes)[:, :, list(classes)[0]]
    assert maps[0][2][:, 1, 2] == pytest.approx((votes[0] - votes[1]).numpy(), abs=1e-6)
    assert occlusion.occlusions(run, {}) == []


# ---- what can't be looked into, and refusals ----


def test_prompts_that_are_not_there_are_said_and_votes_make_their_tables(tmp_path, tables, caplog):
    answers = {
        **make_answers(1, templates=3),
        "image": numpy.array([f"{n}.png" for n in range(40)]),
    }
    write_run(tmp_path, "train_base", "CDC", 1, "base", answers)
    assert len(tables(tmp_path)) == 3
    (run,) = collect(tmp_path)
    series, paths = group([run]), {"openmoji": {f"{n}.png": "x.png" for n in range(40)}}
    assert not list(occlusion_figures(series, paths))
    assert f"where the templates of {run.folder} look can't be drawn" in caplog.text


def test_refusals_are_one_line(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "runs", "train_base", "CoOp", 1, "base", make_answers(1))
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base", make_answers(1, templates=1))
    monkeypatch.chdir(tmp_path)
    for folder, message in (
        ("runs", "no run in or below runs has votes of several templates: train CDC with TRAINER."),
        ("nowhere", "no results.json in or below nowhere: give the folder of a finished run"),
    ):
        assert main([folder]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(errors) == 1 and errors[0].startswith(f"error: {message}")

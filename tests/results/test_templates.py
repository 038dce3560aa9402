"""Whether templates differ: the numbers against textbook loops and closed forms, and real runs."""

import csv
import json

import numpy
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.metrics import cohen_kappa_score

from analysis import occlusion
from analysis.occlusion import GREY, PATCH, PLACES, SIDE, STEP, occlusion_figures
from protocols import training
from protocols.command_line import parse_arguments
from results.report.page import make_report
from results.runs import collect
from results.templates import agreement, kappa, main, oracle
from tests.results.conftest import Page, make_answers, write_run
from tests.runs import base_arguments, call, record_of
from tests.trainers.test_every_trainer import BASE, NEW
from trainers import PromptedClassifier


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, data_root, small_clip_file):
    """Base to new of the miniature: CDC with two seeds, CoOp with one; where the protocol puts them."""
    root = tmp_path_factory.mktemp("base2new")

    def start(part, name, seed, *more):
        folder = root / f"{part}/dtd/shots_4/{name}/small/seed{seed}"
        arguments = base_arguments(name, data_root, small_clip_file, folder, seed)
        what = {"protocol": "base2new", "part": part, "dataset": "dtd", "recipe": "small"}
        training.run(parse_arguments([*arguments, "--run", json.dumps(what), *more]))
        return str(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "collect_env_info", lambda: "left out in tests")
        for name, seed in (("CDC", 1), ("CDC", 2), ("CoOp", 1)):
            trained = start("train_base", name, seed, *BASE)
            start("test_new", name, seed, "--eval-only", "--model-dir", trained, *NEW)
    return root


@pytest.fixture
def tables(capsys):
    """Runs the command and returns title → list of rows, dicts by column."""

    def start(*arguments):
        assert call(main, *arguments, "--format", "csv") == 0
        words = capsys.readouterr().out.split("\n\n")
        return {
            title.strip(): list(csv.DictReader(body.splitlines()))
            for title, body in zip(words[::2], words[1::2])
        }

    return start


# ---- numbers ----


def test_agreement_is_the_share_of_images_with_the_same_class():
    """And the oracle needs one right vote."""
    votes = numpy.array([[0, 1, 2, 0], [0, 1, 1, 1]])
    answer, label = numpy.array([0, 1, 2, 1]), numpy.array([0, 0, 2, 2])
    rows = [*votes.tolist(), answer.tolist(), label.tolist()]
    expected = [[25 * sum(map(int.__eq__, one, other)) for other in rows] for one in rows]
    assert agreement(votes, answer, label).tolist() == expected
    assert oracle(votes, numpy.array([0, 2, 2, 1])) == 75


def test_kappa_is_scikit_learns_and_one_for_copies_even_of_one_class():
    generator = numpy.random.default_rng(1)
    votes = numpy.vstack([generator.integers(0, 3, (3, 50)), numpy.ones((2, 50), int)])

    found = kappa(votes)
    expected = [[cohen_kappa_score(one, other) for other in votes[:3]] for one in votes[:3]]
    assert found[:3, :3] == pytest.approx(numpy.array(expected))
    assert found[3, 4] == 1 and found[3, 0] == pytest.approx(0)


# ---- real runs ----


def test_tables_have_the_runs_own_figures_and_mean_and_deviation_over_seeds(
    protocol, tables, caplog
):
    moved, accuracy, *others = (found := tables(protocol)).values()
    titles = ["Templates before and after training", "Accuracy of 4 templates"]
    votes = ["Agreement of the votes in %", "Cohen's kappa of the votes"]
    assert [*found] == titles + votes

    def records(part):
        folders = (protocol / f"{part}/dtd/shots_4/CDC/small").iterdir()
        return [*map(record_of, folders)]

    # of the trainings alone
    deviations = "images, between deviations from CLIP's own"
    (shown,) = (row for row in moved if row["100 × cosine"] == deviations)
    after = [record["learned"]["images_deviations_after"] for record in records("train_base")]
    assert float(shown["after_mean"]) == pytest.approx(100 * numpy.mean(after), abs=1e-3)
    for row, part in zip(accuracy, ("train_base", "test_new"), strict=True):
        metrics = [record["metrics"]["test"] for record in records(part)]
        figures = numpy.array([[of["accuracy"], *of["template_accuracy"]] for of in metrics])
        for column, values in zip(("fused", "S1", "S2", "S3", "S4"), figures.T, strict=True):
            assert float(row[f"{column}_mean"]) == pytest.approx(values.mean(), abs=1e-3)
            assert float(row[f"{column}_std"]) == pytest.approx(values.std(ddof=1), abs=1e-3)
        assert float(row["oracle_mean"]) >= figures[:, 1:].mean(axis=0).max() - 1e-3
        assert (row["seeds"], row["model"]) == ("2", "CDC small")
    for classes in ("base", "new"):
        line = f"left out: CoOp small, dtd, {classes} classes, has no votes of several templates"
        assert line in caplog.messages


def test_where_templates_look_is_drawn_of_trainings_in_the_report(protocol, data_root, tmp_path):
    make_report([protocol], tmp_path / "page.html", {"Maps": occlusion_figures}, data_root)
    texts = [image["alt"] for image in Page(tmp_path / "page.html").all("img")]
    (alt,) = (text for text in texts if text.startswith("Occlusion maps of"))
    assert "CDC small, dtd, base classes, seed 1. Largest fall" in alt
    (figure,) = (tmp_path / "page_figures").glob("occlusion*")
    assert figure.name == "occlusion-dtd-base-classes-cdc-small.svg"


def test_maps_are_of_the_least_doubted_right_answers_one_a_class(protocol, data_root):
    (run,) = collect(protocol / "train_base/dtd/shots_4/CDC/small/seed1")
    answers, images = run.answers, {}  # label: the name
    paths = {name: f"{data_root}/dtd/images/{name}" for name in answers["image"].tolist()}
    for index in numpy.argsort(answers["max_probability"]):
        label = int(answers["label"][index])
        if answers["top"][index, 0] == label:
            images.setdefault(label, str(answers["image"][index]))
    (name, picture, drops), *others = occlusion.occlusions(run, paths)
    classifier = PromptedClassifier.load(run.folder)
    found = [name, *(other[0] for other in others)]
    assert found == [classifier.classnames[label] for label in images]
    label, file = next(iter(images.items()))
    expected = ImageOps.fit(Image.open(paths[file]).convert("RGB"), (SIDE, SIDE))
    assert picture.tobytes() == expected.tobytes()
    assert drops.shape == (4, PLACES, PLACES) and PLACES * STEP == SIDE - PATCH + STEP
    covered = expected.copy()
    covered.paste(GREY, (2 * STEP, STEP, 2 * STEP + PATCH, STEP + PATCH))
    votes = torch.as_tensor(classifier.predict([expected, covered]).votes)[:, :, label]
    assert drops[:, 1, 2] == pytest.approx((votes[0] - votes[1]).numpy(), abs=1e-6)
    assert occlusion.occlusions(run, {}) == []


# ---- what can't be looked into, and refusals ----


def test_runs_without_votes_of_several_templates_are_refused(tmp_path, error_of):
    write_run(tmp_path, "train_base", "CoOp", 1, "base", make_answers(1))
    write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1, templates=1))
    message = "has votes of several templates: train CDC with TRAINER."
    assert message in error_of(main, tmp_path)

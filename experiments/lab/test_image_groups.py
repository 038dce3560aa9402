"""How good the measures of uncertainty are: whole runs against the runs' own records, scikit-learn,
textbook loops; the cache."""

import functools
import json
import shutil
import statistics
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn.functional import nll_loss

from datasets.drawn.emoji_styles import SEVERITIES, corrupt_at
from experiments.lab import image_groups
from experiments.lab.uncertainty import main, uncertainty_tables
from labelling import PromptedClassifier
from results.kept import SCALED, read_kept
from results.render import render
from tests.conftest import BASE, GOLDEN, NEW
from tests.results.conftest import values
from tests.runs import call, change_record, change_split, prompts_of, record_of
from tests.same_run import kept_answers
from trainers.data.images import Images
from trainers.evaluation.uncertainty import (
    distance_temperatures,
    fit_temperature,
    temperature_scaled,
)

TRAINERS = ("CDC", "CoCoOp")  # with evidence, with texts that depend on the image
TABLES = GOLDEN["uncertainty"]
LEARNED = "VPT"  # its validation images want a temperature inside of what is looked through
OPTIONS = {LEARNED: ("OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH", "10")}
NEW_NAMES = ["woven", "zigzagged", "grid"]


def lay(folder, output, trainer="CDC"):
    """A copy of a run where the base-to-new protocol has it."""
    place = output / f"train_base/dtd/shots_4/{trainer}/tiny/seed1"
    shutil.copytree(folder, place)
    what = {"protocol": "base2new", "part": "train_base", "dataset": "dtd", "recipe": "tiny"}
    change_record(place, run={**record_of(place)["run"], **what})
    return place


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """``evaluated(trainer)``: figures, arrays, folder of a run on the base classes of the
    miniature; each made once."""

    @functools.cache
    def start(trainer):
        run = trained(trainer, *BASE, *OPTIONS.get(trainer, ()))
        folder = lay(run, tmp_path_factory.mktemp(trainer), trainer)
        assert call(main, folder.parents[5]) == 0
        figures = json.loads((folder / "uncertainty.json").read_text())
        return figures, dict(numpy.load(f"{folder}/uncertainty.npz")), folder

    return start


# ---- whole runs ----


@pytest.mark.parametrize("trainer", TRAINERS)
def test_it_finds_what_the_runs_own_tests_found_on_base_and_new_classes(
    evaluated, run, trained, trainer
):
    figures, arrays, folder = evaluated(trainer)
    metrics = record_of(folder)["metrics"]["test"]
    assert figures["images"] == {"base": metrics["images"], "new": 12}
    assert figures["accuracy"]["base"] == metrics["accuracy"]
    kept = kept_answers(folder, "test")
    numpy.testing.assert_array_equal(arrays["base_image"], kept["image"])
    for name, known in metrics["uncertainty"].items():
        assert known.items() <= figures["doubt"][name].items()
        numpy.testing.assert_array_equal(arrays[f"base_{name}"], kept[name])
    of_new = run(trainer, *NEW, flags=prompts_of(trained(trainer, *BASE)))[1]["metrics"]["test"]
    for classes, known in (("base", metrics), ("new", of_new)):
        calibration = figures["calibration"][classes]["before"]
        assert calibration == {key: known[key] for key in ("ece", "adaptive_ece", "nll", "brier")}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_figures_follow_from_what_is_kept_of_each_image(evaluated, trainer):
    figures, arrays, _ = evaluated(trainer)
    shares = 100 * arrays["corrupted_right"].mean(axis=1)
    assert figures["accuracy"]["corrupted"] == pytest.approx(shares.tolist())
    for name, found in figures["doubt"].items():
        base, new, corrupted = (arrays[f"{group}_{name}"] for group in ("base", "new", "corrupted"))
        assert corrupted.shape == (5, 12)
        groups = [base, new, *corrupted]
        means = found["mean"]
        assert [means["base"], means["new"], *means["corrupted"]] == pytest.approx(
            [group.mean(dtype=float) for group in groups]
        )
        aurocs = [found["new_auroc"], *found["corrupted_auroc"]]
        for auroc, others in zip(aurocs, groups[1:], strict=True):
            is_other = numpy.repeat([0, 1], [len(base), len(others)])
            expected = 100 * roc_auc_score(is_other, numpy.concatenate([base, others]))
            assert auroc == pytest.approx(expected, rel=1e-5)


def test_new_and_corrupted_images_are_shown_to_the_base_classes(evaluated, data_root):
    _, arrays, folder = evaluated("CDC")
    classifier = PromptedClassifier.load(folder)
    images = Path(data_root, "dtd", "images")
    new = classifier.predict([images / name for name in arrays["new_image"]])
    assert {name.split("/")[0] for name in arrays["new_image"]} == {*NEW_NAMES}
    numpy.testing.assert_array_equal(arrays["new_vacuity"], new.vacuity)
    paths = [images / name for name in arrays["base_image"]]
    for number, severity in enumerate(SEVERITIES):
        pictures = [corrupt_at(severity, Image.open(path), path.stem) for path in paths]
        found = classifier.predict(pictures)
        numpy.testing.assert_array_equal(arrays["corrupted_vacuity"][number], found.vacuity)
        right = [answer == path.parent.name for answer, path in zip(found.labels, paths)]
        assert arrays["corrupted_right"][number].tolist() == right


@pytest.fixture
def answers_of(data_root):
    """Logarithms of a classifier's probabilities of images, and their labels."""

    def start(classifier, names):
        found = classifier.predict([f"{data_root}/dtd/images/{name}" for name in names])
        labels = [classifier.classnames.index(name.split("/")[0]) for name in names]
        return torch.tensor(found.probabilities).log(), torch.tensor(labels)

    return start


def nll(log_probability, labels, temperature):
    scaled = temperature_scaled(log_probability, temperature)
    kept = scaled.float().clamp(min=torch.finfo(torch.float32).tiny)  # as the record's
    return pytest.approx(nll_loss(kept.log(), labels).item(), rel=1e-4)


def test_the_temperature_is_that_of_the_validation_images(evaluated, answers_of):
    figures, arrays, folder = evaluated(LEARNED)
    classifier = PromptedClassifier.load(folder)
    validation = answers_of(classifier, kept_answers(folder, "val")["image"].tolist())
    temperature = figures["temperature"]
    assert temperature == pytest.approx(fit_temperature(*validation), rel=1e-3)
    of_base = answers_of(classifier, arrays["base_image"])
    doubt = 1 - temperature_scaled(of_base[0], temperature).amax(dim=1)
    numpy.testing.assert_allclose(arrays[f"base_{SCALED}"], doubt, atol=1e-5)
    of_new = answers_of(classifier.with_classes(NEW_NAMES), arrays["new_image"])
    for classes, answers in (("base", of_base), ("new", of_new)):
        assert figures["calibration"][classes]["after"]["nll"] == nll(*answers, temperature)


def test_new_classes_are_scaled_by_the_distances_of_their_texts(evaluated, answers_of):
    figures, arrays, folder = evaluated("CDC")
    base = PromptedClassifier.load(folder)
    new = base.with_classes(NEW_NAMES)
    answers = answers_of(new, arrays["new_image"])
    tuned = (of.encoded[0].float() for of in (new, base))
    plain = (of.method.hand_crafted for of in (new, base))
    own = distance_temperatures(*tuned, *plain)[answers[0].argmax(dim=1)]
    found = figures["calibration"]["new"]["by_distance"]
    assert found["nll"] == nll(*answers, own[:, None])
    assert found["temperature"] == pytest.approx(own.mean().item(), rel=1e-4)
    of_images = evaluated("CoCoOp")[0]["calibration"]["new"]
    assert of_images["by_distance"] is None, "whose texts depend on the image"


@pytest.fixture
def zero_shot(trained, tmp_path):
    """A run that trains nothing, where the protocol has it."""
    return lay(trained("ZeroshotCLIP", *BASE), tmp_path / "output")


def test_without_validation_images_of_its_own_a_run_is_not_scaled(zero_shot, monkeypatch, caplog):
    monkeypatch.setattr(Images, "validates_on_test_images", True)
    figures, arrays = image_groups.evaluate(zero_shot)
    assert figures["temperature"] is None
    assert f"base_{SCALED}" not in arrays
    assert "has no validation images of its own" in caplog.text


# ---- what is kept ----


def test_what_is_of_another_run_is_computed_again(evaluated, tmp_path, monkeypatch, capsys):
    """What makes it another one, and what is missing or damaged: test_damaged_files.py."""
    figures, arrays, folder = evaluated("CDC")
    copy, computed = lay(folder, tmp_path), []
    ours = ("format", "made_from", "sha256", "images_sha256")
    results = {name: value for name, value in figures.items() if name not in ours}

    def evaluate(*_):
        computed.append(1)
        return results, arrays

    monkeypatch.setattr(image_groups, "evaluate", evaluate)
    for changed, times in (({}, 0), ({"prompts_hash": "other"}, 1), ({}, 1)):  # then it is kept
        change_record(copy, **changed)
        assert call(main, tmp_path) == 0
        assert len(computed) == times
        assert "What each measure tells apart" in capsys.readouterr().out
        assert results.items() <= read_kept(copy, record_of(copy)).items()


# ---- refusals ----


def test_other_data_than_the_runs_are_refused_and_another_place_will_do(
    zero_shot, tmp_path, data_root, error_of
):
    config = record_of(zero_shot)["config"]
    config["DATASET"]["ROOT"] = f"{tmp_path}/gone"
    change_record(zero_shot, config=config)
    assert error_of(main, tmp_path / "output").startswith("error: data folder")
    shutil.copytree(f"{data_root}/dtd", f"{tmp_path}/data/dtd")
    figures, _ = image_groups.evaluate(zero_shot, tmp_path / "data")
    assert figures["accuracy"]["base"] == record_of(zero_shot)["metrics"]["test"]["accuracy"]
    change_split(tmp_path / "data", test=change_split(tmp_path / "data")["test"][1:])
    line = error_of(main, tmp_path / "output", "--root", tmp_path / "data")
    assert "holds other images, or another few-shot sample, than the run" in line
    assert not (zero_shot / "uncertainty.json").exists()


# ---- the tables ----


def test_tables_by_hand():
    """A figure that is not defined, CoOp's error AUROC of energy, leaves its seed out."""
    runs = []
    for trainer, of_seeds in TABLES["runs"].items():
        key = ("dtd", 16, trainer, "tiny")
        runs.extend((key, seed, figures) for seed, figures in of_seeds.items())
    made = uncertainty_tables(runs)
    for table, names, expected in zip(made, TABLES["rows"], TABLES["expected"], strict=True):
        rows = {" ".join((key[2], *key[4:])): row for key, row in values(table).items()}
        assert list(rows) == names
        assert {name: rows[name] for name in expected} == expected
    assert f"72.00 ± {statistics.stdev([71, 73]):.2f}" in render(made[0])

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

from analysis import image_groups
from analysis.uncertainty import main, tables
from datasets.drawn.emoji_styles import SEVERITIES, corrupted_at
from results.kept import SCALED, read_figures
from results.render import render
from tests.conftest import GOLDEN
from tests.results.conftest import values, write
from tests.runs import call, change_record, change_split, prompts_of, record_of
from tests.same_run import kept_answers
from tests.trainers.test_every_trainer import BASE, NEW
from trainers import PromptedClassifier
from trainers.evaluation.uncertainty import (
    distance_temperatures,
    fit_temperature,
    temperature_scaled,
)

# with evidence, with texts that depend on the image, with nothing learned
TRAINERS = ("CDC", "CoCoOp", "ZeroshotCLIP")
CONTENDER = "CDC"
TABLES = GOLDEN["uncertainty"]
LEARNED = "VPT"  # its validation images want a temperature inside of what is looked through
OPTIONS = {LEARNED: ("OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH", "10")}


def lay(folder, output, trainer="CDC", seed=1):
    """A copy of a run where the base-to-new protocol has it."""
    place = output / f"train_base/dtd/shots_4/{trainer}/tiny/seed{seed}"
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


NEW_NAMES = ["woven", "zigzagged", "grid"]


# ---- whole runs ----


@pytest.mark.parametrize("trainer", TRAINERS)
def test_it_finds_what_the_runs_own_tests_found_on_base_and_new_classes(
    evaluated, run, trained, trainer
):
    figures, arrays, folder = evaluated(trainer)
    metrics = record_of(folder)["metrics"]["test"]
    assert figures["images"] == {"base": metrics["images"], "new": 12}
    assert figures["accuracy"]["base"] == metrics["accuracy"]
    assert set(figures["doubt"]) == {*metrics["uncertainty"], SCALED}
    kept = kept_answers(folder, "test")
    expected = {"right": kept["top"][:, 0] == kept["label"], "image": kept["image"]}
    for name, known in metrics["uncertainty"].items():
        assert known.items() <= figures["doubt"][name].items()
        expected[name] = kept[name]
    for name, known in expected.items():
        numpy.testing.assert_array_equal(arrays[f"base_{name}"], known)
    flags = prompts_of(trained(trainer, *BASE))
    of_new = run(trainer, *NEW, flags=flags)[1]["metrics"]["test"]
    for classes, known in (("base", metrics), ("new", of_new)):
        calibration = figures["calibration"][classes]["before"]
        assert calibration == {key: known[key] for key in ("ece", "adaptive_ece", "nll", "brier")}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_figures_follow_from_what_is_kept_of_each_image(evaluated, trainer):
    figures, arrays, _ = evaluated(trainer)
    assert arrays["corrupted_right"].shape == (5, 12) and arrays["new_image"].shape == (12,)
    corrupted = 100 * arrays["corrupted_right"].mean(axis=1)
    assert figures["accuracy"]["corrupted"] == pytest.approx(corrupted.tolist())
    for name, found in figures["doubt"].items():
        base, new, corrupted = (arrays[f"{group}_{name}"] for group in ("base", "new", "corrupted"))
        assert corrupted.shape == (5, 12)

        def auroc(is_other, doubt):
            return pytest.approx(100 * roc_auc_score(is_other, doubt), rel=1e-5)

        def against_base(others):
            return auroc([0] * len(base) + [1] * len(others), numpy.concatenate([base, others]))

        assert found["new_auroc"] == against_base(new)
        assert found["corrupted_auroc"] == [against_base(part) for part in corrupted]
        wrong = ~arrays["base_right"]  # none: nothing to tell apart
        assert found["error_auroc"] == (auroc(wrong, base) if wrong.any() else None)
        means = found["mean"]
        assert [means["base"], means["new"], *means["corrupted"]] == pytest.approx(
            [part.mean(dtype=float) for part in (base, new, *corrupted)]
        )


def test_new_and_corrupted_images_are_shown_to_the_base_classes(evaluated, data_root):
    _, arrays, folder = evaluated(CONTENDER)
    classifier = PromptedClassifier.load(folder)
    new = classifier.predict([f"{data_root}/dtd/images/{name}" for name in arrays["new_image"]])
    assert {name.split("/")[0] for name in arrays["new_image"]} == {*NEW_NAMES}
    for name in ("vacuity", "conflict"):
        numpy.testing.assert_array_equal(arrays[f"new_{name}"], getattr(new, name))
    paths = [Path(data_root, "dtd", "images", name) for name in arrays["base_image"]]
    for number, severity in enumerate(SEVERITIES):
        found = classifier.predict(
            [corrupted_at(severity, Image.open(path).convert("RGB"), path.stem) for path in paths]
        )
        numpy.testing.assert_array_equal(arrays["corrupted_vacuity"][number], found.vacuity)
        answers = [classifier.classnames[k] for k in found.probabilities.argmax(axis=1)]
        right = [answer == path.parent.name for answer, path in zip(answers, paths)]
        assert arrays["corrupted_right"][number].tolist() == right


@pytest.mark.parametrize("trainer", [*TRAINERS, LEARNED])
def test_temperatures_are_those_of_validation_images_and_of_the_new_classes_texts(
    evaluated, data_root, trainer
):
    figures, arrays, folder = evaluated(trainer)
    base, temperature = PromptedClassifier.load(folder), figures["temperature"]
    new = base.with_classes(NEW_NAMES)

    def answers_of(classifier, names):
        found = classifier.predict([f"{data_root}/dtd/images/{name}" for name in names])
        labels = [classifier.classnames.index(name.split("/")[0]) for name in names]
        return torch.tensor(found.probabilities).log(), torch.tensor(labels)

    def nll(log_probability, labels, temperature):
        scaled = temperature_scaled(log_probability, temperature)
        kept = scaled.float().clamp(min=torch.finfo(torch.float32).tiny)  # as the record's
        return pytest.approx(nll_loss(kept.log(), labels).item(), rel=1e-4)

    names = kept_answers(folder, "val")["image"].tolist()
    assert temperature == pytest.approx(fit_temperature(*answers_of(base, names)), rel=1e-3)
    of_base, of_new = answers_of(base, arrays["base_image"]), answers_of(new, arrays["new_image"])
    doubt = 1 - temperature_scaled(of_base[0], temperature).amax(dim=1)
    numpy.testing.assert_allclose(arrays[f"base_{SCALED}"], doubt, atol=1e-5)
    for classes, answers in (("base", of_base), ("new", of_new)):
        if (classes, trainer) != ("new", CONTENDER):  # whose least probabilities are cut off
            assert figures["calibration"][classes]["after"]["nll"] == nll(*answers, temperature)
    found = figures["calibration"]["new"]["by_distance"]
    if trainer == "CoCoOp":  # whose texts depend on the image
        assert found is None
        return
    tuned = (of.encoded[0].float() for of in (new, base))
    plain = (of.method.hand_crafted for of in (new, base))
    own = distance_temperatures(*tuned, *plain)[of_new[0].argmax(dim=1)]
    assert found["nll"] == nll(*of_new, own[:, None])
    assert found["temperature"] == pytest.approx(own.mean().item(), rel=1e-4)
    moves_texts = trainer == CONTENDER
    assert (found["temperature"] != 1) == moves_texts


def test_what_cannot_be_scaled_is_not(trained, tmp_path, monkeypatch, caplog):
    """Without validation images of its own no answers, with contexts of classes none on new ones."""

    monkeypatch.setattr(image_groups, "validates_on_test_images", lambda data: True)
    folder = lay(trained("ZeroshotCLIP", *BASE), tmp_path, "ZeroshotCLIP")
    figures, arrays = image_groups.evaluate(folder)
    assert figures["temperature"] is None and f"base_{SCALED}" not in arrays
    assert "has no validation images of its own" in caplog.text
    monkeypatch.setattr(image_groups, "validates_on_test_images", lambda data: False)
    run = trained("CoOp", *BASE, "TRAINER.COOP.CSC", "True")
    figures, _ = image_groups.evaluate(lay(run, tmp_path, "CoOp"))
    assert figures["calibration"]["new"] is None
    assert figures["doubt"]["max_probability"]["new_auroc"] is not None


# ---- what is kept ----


def test_what_is_of_another_run_is_computed_again(evaluated, tmp_path, monkeypatch, capsys):
    """What makes it another one, and what is missing or damaged: test_damaged_files.py."""
    figures, arrays, folder = evaluated(CONTENDER)
    copy, computed = lay(folder, tmp_path), []
    ours = ("format", "made_from", "sha256", "images_sha256")
    results = {name: value for name, value in figures.items() if name not in ours}
    evaluate = lambda *_: computed.append(1) or (results, arrays)  # noqa: E731
    monkeypatch.setattr(image_groups, "evaluate", evaluate)
    titles = (
        "What each measure tells apart",
        "Accuracy and mean uncertainty",
        "Calibration before and",
    )
    for changed, times in (({}, 0), ({"prompts_hash": "other"}, 1), ({}, 1)):  # then it is kept
        change_record(copy, **changed)
        assert call(main, tmp_path) == 0 and len(computed) == times
        printed = capsys.readouterr().out
        assert all(title in printed for title in titles)
        assert results.items() <= read_figures(copy, record_of(copy)).items()


# ---- refusals ----


def test_other_data_than_the_runs_are_refused_and_another_place_will_do(
    trained, tmp_path, data_root, evaluated, error_of
):
    def refusal(*arguments):
        line = error_of(main, *arguments)
        assert not (copy / "uncertainty.json").exists()
        return line

    copy = lay(trained("ZeroshotCLIP", *BASE), tmp_path / "output", "ZeroshotCLIP")
    config = record_of(copy)["config"]
    config["DATASET"]["ROOT"] = f"{tmp_path}/gone"
    change_record(copy, config=config)
    assert refusal(f"{tmp_path}/output").startswith("error: data folder")
    shutil.copytree(f"{data_root}/dtd", f"{tmp_path}/data/dtd")
    figures, _ = image_groups.evaluate(copy, tmp_path / "data")
    assert figures.items() <= evaluated("ZeroshotCLIP")[0].items()
    change_split(tmp_path / "data", test=change_split(tmp_path / "data")["test"][1:])
    line = refusal(f"{tmp_path}/output", "--root", f"{tmp_path}/data")
    assert "holds other images, or another few-shot sample, than the run" in line
    (copy / "results.json").unlink()
    write(tmp_path / "output", "test_all", "CoOp", 1, 50.0)
    assert "no trained base run below" in refusal(f"{tmp_path}/output")


# ---- the tables ----


def test_tables_by_hand():
    """A figure that is not defined, CoOp's error AUROC of energy, leaves its seed out."""
    runs = [
        (("dtd", 16, trainer, "tiny"), seed, figures)
        for trainer, of_seeds in TABLES["runs"].items()
        for seed, figures in of_seeds.items()
    ]
    made = tables(runs)
    found = [{" ".join((key[2], *key[4:])): row for key, row in values(of).items()} for of in made]
    assert [*map(list, found)] == TABLES["rows"]
    for rows, expected in zip(found, TABLES["expected"], strict=True):
        assert {name: rows[name] for name in expected} == expected
    assert f"72.00 ± {statistics.stdev([71, 73]):.2f}" in render(made[0])

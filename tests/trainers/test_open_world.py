"""Base and new classes together: the figures against scikit-learn, and a classifier that knows base
classes only."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import one_hot

from tests.runs import prompts_of, refuses
from tests.same_run import kept_answers
from trainers.evaluation.open_world import open_world
from trainers.evaluation.prediction import Prediction

BASE, CLASSES = 3, 5


def answers(sharpness, images=40):
    """Predictions of images of all classes, more right than wrong, and labels; probabilities in
    steps of 1/32, so that some doubts are equal."""
    labels = torch.arange(images) % CLASSES
    logits = torch.randn(images, CLASSES) + sharpness * one_hot(labels, CLASSES)
    return Prediction(logits.softmax(dim=1).mul(32).round() / 32), labels


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 2.0, 4.0])
def test_the_figures_are_those_of_all_pairs(sharpness):
    prediction, labels = answers(sharpness)
    found = open_world(prediction, labels, BASE)
    base, new = prediction.probability.split([BASE, CLASSES - BASE], dim=1)
    signs = {
        "base_probability": -base.amax(dim=1),
        "new_probability": new.sum(dim=1),
        # what is left for the others: rounded probabilities do not sum to one
        "max_probability": prediction.probability.sort(dim=1).values[:, :-1].sum(dim=1),
    }
    expected = {name: 100 * roc_auc_score(labels >= BASE, sign) for name, sign in signs.items()}
    assert found["auroc"] == pytest.approx(expected, abs=1e-4)
    answer = prediction.probability.argmax(dim=1)
    for name, of_half in (("base", labels < BASE), ("new", labels >= BASE)):
        accuracy = 100 * (answer == labels)[of_half].float().mean().item()
        assert found[f"{name}_accuracy"] == pytest.approx(accuracy)


def test_images_of_one_kind_are_refused():
    prediction, labels = answers(2.0)
    base = labels < BASE
    with refuses("needs test images of base classes and of new ones, there are 24 and 0"):
        open_world(Prediction(prediction.probability[base]), labels[base], BASE)


@pytest.mark.parametrize(
    "trainer, parts", [("CDC", []), ("LinearProbe", ["weight", "bias", "gaussians"])]
)
def test_a_trained_run_is_asked_with_all_classes(run, trainer, parts):
    """It says which parts serve the base classes alone, and are left out."""
    _, trained, folder = run(trainer, "DATASET.SUBSAMPLE_CLASSES", "base", name="base")
    _, record, output = run(trainer, "TEST.OPEN", "True", name="open", flags=prompts_of(folder))
    assert record["prompts_hash"] == trained["prompts_hash"]
    assert "open" not in trained["metrics"]["test"]
    found = record["metrics"]["test"]
    mean = (found["open"]["base_accuracy"] + found["open"]["new_accuracy"]) / 2
    assert found["accuracy"] == pytest.approx(mean)  # as many images of each
    signs = {"base_probability", "new_probability"}
    assert set(found["open"]["auroc"]) == {*signs, *found["uncertainty"]}
    assert found["open"]["left_out"] == parts
    warning = f"{trainer} answers all classes together without its {', '.join(parts)}"
    assert (warning in (output / "log.txt").read_text()) == bool(parts)
    assert signs <= {*kept_answers(output, "test")}

"""Tests a trained base run on three groups of images: what ``python -m experiments.lab.uncertainty``
measures and keeps in the run's folder.

``uncertainty.json``, with S = 5 severities; AUROC and AURC in percent:

- ``format``; ``made_from``: hashes of the run's prompts, backbone and split, and when it was
  finished; ``sha256`` of the other content and ``images_sha256`` of the second file, which tell
  damage;
- ``temperature``: T, fitted on the run's val images; None where it has none of its own;
- ``images``: number of ``base`` and of ``new`` ones; ``accuracy``: ``base`` in percent,
  ``corrupted`` a list of S;
- ``doubt``: by measure, those of ``trainers.evaluation.prediction.Prediction.uncertainties`` that
  the trainer has (``max_probability``, ``energy``, ``vacuity``, ``conflict``), and
  ``scaled_max_probability``, the first after temperature scaling: ``aurc`` and ``error_auroc`` on
  base; ``new_auroc``, new against base; ``corrupted_auroc``, a list of S, corrupted against base;
  ``mean`` of ``base``, ``new`` and, a list of S, ``corrupted``;
- ``calibration``: of ``base``, and of ``new`` answered *with the new classes' names* (None where
  contexts are class-specific), ``before`` and ``after`` temperature scaling with that same T (None
  without): see ``trainers.evaluation.prediction.calibration``; of ``new`` also ``by_distance``,
  scaled by the distances of the classes' texts, see
  ``trainers.evaluation.uncertainty.distance_temperatures`` (None where texts depend on the image),
  with the mean ``temperature`` over images.

``uncertainty.npz``, of N base and L new images, for each measure of ``doubt``: ``base_<measure>``
(N,), ``new_<measure>`` (L,), ``corrupted_<measure>`` (S, N), all float32, larger is more uncertain;
``base_right`` (N,) and ``corrupted_right`` (S, N), bool; ``base_image`` (N,) and ``new_image``
(L,), folder and file name. A histogram of right, wrong, new and corrupted draws
``base_m[base_right]``, ``base_m[~base_right]``, ``new_m`` and ``corrupted_m[severity - 1]``.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy
import torch
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from PIL.Image import Image as Picture
from torch import Tensor

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.drawn.emoji_styles import SEVERITIES, corrupt_at
from labelling.classifier import PromptedClassifier
from results.kept import KEPT_MEASURES, SCALED, UncertaintyRecord
from results.runs import Arrays
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.common.image_files import read_picture
from trainers.data.images import images_of
from trainers.evaluation.prediction import Prediction, calibration
from trainers.evaluation.uncertainty import (
    auroc,
    distance_temperatures,
    doubt,
    fit_temperature,
    temperature_scaled,
)

log = logging.getLogger(__name__)
# groups of images
BASE = "base"
NEW = "new"
CORRUPTED = {f"corrupted {severity}": severity for severity in SEVERITIES}  # base ones
Table = dict[str, dict[str, Tensor]]  # group → measure → a value for each image
Calibration = dict[str, float]  # see ``trainers.evaluation.prediction.calibration``


def evaluate(
    folder: str | Path, root: str | Path | None = None
) -> tuple[UncertaintyRecord, Arrays]:
    """Shows a trained base run the three groups of images.

    Args:
        folder: the run's; root: folder of the data sets, where it is no longer the one that the run
            found them in.

    Returns:
        what ``uncertainty.json`` (without ``format``, ``made_from`` and the fingerprints) and
        ``uncertainty.npz`` hold.

    Raises:
        UserError: the run can't be loaded, its images are not found, or they are others than those
            it was trained and tested on.
    """
    classifier = PromptedClassifier.load(folder)
    base, new = (find_data(classifier, classes, root) for classes in ("base", "new"))
    if images_of(base).split_hash != classifier.record["split_hash"]:
        raise UserError(
            f"{base.dataset_dir} holds other images, or another few-shot sample, than the run {folder} had: give the "
            "--root of its data, or run it again"
        )
    temperature = temperature_of(classifier, base)
    if temperature is None:
        log.warning("no temperature scaling: %s has no validation images of its own", folder)
    labels = labels_of(base.test)
    shown = predictions(classifier, paths_of(base.test), paths_of(new.test))
    right = is_right(shown[BASE], labels)  # (N,)
    still_right = torch.stack([is_right(shown[name], labels) for name in CORRUPTED])  # (S, N)
    arrays = {
        "base_image": numpy.array([*map(image_name, paths_of(base.test))]),
        "new_image": numpy.array([*map(image_name, paths_of(new.test))]),
        "base_right": right.numpy(),
        "corrupted_right": still_right.numpy(),
    }
    table = {group: uncertainties_of(answers, temperature) for group, answers in shown.items()}
    for measure in table[BASE]:
        arrays[f"base_{measure}"] = table[BASE][measure].numpy()
        arrays[f"new_{measure}"] = table[NEW][measure].numpy()
        arrays[f"corrupted_{measure}"] = numpy.stack([table[name][measure] for name in CORRUPTED])
    numbers = {
        "temperature": temperature,
        "images": {"base": len(base.test), "new": len(new.test)},
        "accuracy": {
            "base": 100 * mean(right),
            "corrupted": [100 * mean(each) for each in still_right],
        },
        "doubt": {measure: worth(table, measure, ~right) for measure in table[BASE]},
        "calibration": {
            "base": before_and_after(shown[BASE], labels, temperature),
            "new": calibration_on_new(classifier, new, temperature),
        },
    }
    return numbers, arrays


def temperature_of(classifier: PromptedClassifier, base: DatasetBase) -> float | None:
    """The temperature that suits the run's validation images; None where it has none of its own."""
    if not base.val or images_of(base).validates_on_test_images:
        return None
    prediction = classifier.prediction(paths_of(base.val))[0]
    return fit_temperature(log_of(prediction.probability), labels_of(base.val))


def predictions(
    classifier: PromptedClassifier, base: list[str], new: list[str]
) -> dict[str, Prediction]:
    """Group of images → the answers to it among the base classes; base, new: paths of the images."""

    def corrupted(severity: int) -> Iterator[Picture]:
        for path in base:
            picture = read_picture(path, classifier.background)
            yield corrupt_at(severity, picture, Path(path).stem)

    answers = {BASE: classifier.prediction(base)[0], NEW: classifier.prediction(new)[0]}
    for name, severity in CORRUPTED.items():
        answers[name] = classifier.prediction(corrupted(severity))[0]
    return answers


def worth(table: Table, measure: str, wrong: Tensor) -> dict[str, object]:
    """How well a measure tells wrong answers to base images, new and corrupted images apart: its entry
    in ``doubt``; wrong: (N,) bool."""
    base = table[BASE][measure]  # (N,)
    new = table[NEW][measure]  # (L,)
    corrupted = [table[name][measure] for name in CORRUPTED]  # S of (N,)
    return {
        **doubt(base, wrong),
        "new_auroc": told_apart(base, new),
        "corrupted_auroc": [told_apart(base, each) for each in corrupted],
        "mean": {
            "base": mean(base),
            "new": mean(new),
            "corrupted": [mean(each) for each in corrupted],
        },
    }


def find_data(classifier: PromptedClassifier, classes: str, root: str | Path | None) -> DatasetBase:
    """The run's data set with ``base`` or ``new`` classes, and its few-shot sample.

    Raises:
        UserError: it is not there.
    """
    cfg = classifier.cfg.clone()
    cfg.defrost()
    cfg.DATASET.SUBSAMPLE_CLASSES = classes
    if root:
        cfg.DATASET.ROOT = str(root)
    with contextlib.redirect_stdout(None):  # which the numbers go to
        return build_dataset(cfg)


def paths_of(items: list[Datum]) -> list[str]:
    return [item.impath for item in items]


def labels_of(items: list[Datum]) -> Tensor:
    return torch.tensor([item.label for item in items])


def log_of(probability: Tensor) -> Tensor:
    """Logarithm in float64; what has underflowed to zero counts as the smallest number that has
    not, as in the record's NLL."""
    return probability.clamp(min=torch.finfo(probability.dtype).tiny).double().log()


def is_right(prediction: Prediction, labels: Tensor) -> Tensor:
    """(N,) bool, whether the most probable class is that of ``labels`` (N,)."""
    return prediction.probability.argmax(dim=1) == labels


def mean(values: Tensor) -> float:
    """The mean, computed in float64."""
    return values.double().mean().item()


def uncertainties_of(prediction: Prediction, temperature: float | None) -> dict[str, Tensor]:
    """Name of a measure → (N,) float32, in the order of ``KEPT_MEASURES``."""
    values = prediction.uncertainties()
    if temperature is not None:
        values[SCALED] = 1 - scaled(prediction, temperature).max(dim=1).values
    return {name: values[name].float() for name in KEPT_MEASURES if name in values}


def told_apart(known: Tensor, others: Tensor) -> float | None:
    """How well a measure of uncertainty tells other images from known ones: area under the ROC
    curve in percent, of its (N,) and (L,) values.
    """
    values = torch.cat([known, others])
    return auroc(values, torch.arange(len(values)) >= len(known))


def scaled(prediction: Prediction, temperature: float | Tensor) -> Tensor:
    """(N, K) probabilities in float64 at a temperature, or at one for each image (N, 1)."""
    return temperature_scaled(log_of(prediction.probability), temperature)


def before_and_after(
    prediction: Prediction, labels: Tensor, temperature: float | None
) -> dict[str, Calibration | None]:
    """Calibration ``before`` and ``after`` temperature scaling, the latter None without a
    temperature."""
    after = None
    if temperature is not None:
        after = calibration(scaled(prediction, temperature).float(), labels)
    return {"before": calibration(prediction.probability, labels), "after": after}


def calibration_on_new(
    classifier: PromptedClassifier, new: DatasetBase, temperature: float | None
) -> dict[str, Calibration | None] | None:
    """``before_and_after`` on the new classes with their own names, and ``by_distance``, scaled by
    the distances of their texts from the run's own; None where the contexts belong to the base
    classes."""
    if classifier.method.is_class_specific:
        return None
    asked = classifier.with_classes(new.classnames)
    labels = labels_of(new.test)
    prediction, _ = asked.prediction(paths_of(new.test))
    numbers = {**before_and_after(prediction, labels, temperature), "by_distance": None}
    if classifier.encoded and asked.encoded:
        texts = asked.encoded[0].cpu(), classifier.encoded[0].cpu()  # (M, K, E), (M, B, E)
        temperatures = distance_temperatures(
            *texts, asked.method.hand_crafted.cpu(), classifier.method.hand_crafted.cpu()
        )  # (K,)
        of_answers = temperatures[prediction.probability.argmax(dim=1), None]  # (N, 1)
        measures = calibration(scaled(prediction, of_answers).float(), labels)
        numbers["by_distance"] = {**measures, "temperature": of_answers.mean().item()}
    return numbers

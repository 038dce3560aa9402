"""Measures a run's kept answers again, so that no record says other than they do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from trainers.evaluation.multi_label import best_thresholds, given_in, measure_multi_label
from trainers.evaluation.prediction import percent_right
from trainers.evaluation.uncertainty import (
    adaptive_calibration_error,
    auroc,
    doubt,
    expected_calibration_error,
)

SUM_ROUNDING = 1e-4  # relative, for sums of float32: processors round otherwise
Arrays = Mapping[str, numpy.ndarray]
Numbers = dict[str, float | None]  # by the metric's name, with dots between levels


def contradiction(
    metrics: Mapping[str, Any], arrays: Arrays, classnames: Sequence[str], is_multi_label: bool
) -> str:
    """The first metric of a split that its answers contradict, in words; "" without any.

    Where an image's two best classes are level to the bit, the file may name either first: then the
    accuracy may differ by these images, and other metrics of right answers are left alone.

    Args:
        metrics: of a record, by ``trainers.evaluation.prediction.measure`` and
            ``trainers.evaluation.multi_label.measure_multi_label``.
        arrays: the answers, as ``FinishedRun.answers_to`` gives them.
        classnames: K; is_multi_label: whether an image may have several of them.
    """
    told = told_numbers(metrics)
    slack: dict[str, float] = {}
    if is_multi_label:
        known = of_labels(arrays, classnames)
    else:
        best = arrays["top_probability"][:, :2]
        level = int((best[:, :1] == best[:, 1:]).sum())
        known = {**of_votes(arrays), **of_answers(arrays)}
        if level:
            known = {**of_votes(arrays), "accuracy": known["accuracy"]}
            slack["accuracy"] = 100 * level / len(best)
        elif "open" in metrics:
            known |= of_halves(arrays, math.ceil(len(classnames) / 2))
    for name, number in known.items():
        if name in told and not agree(told[name], number, slack.get(name, 0.0)):
            return f"{name} {number_text(told[name])}, the answers of {number_text(number)}"
    return ""


def told_numbers(metrics: Mapping[str, Any], path: str = "") -> Numbers:
    """Return the numbers of a record's metrics by ``A.B``; in lists and classes, by their place."""
    numbers: Numbers = {}
    for place, (name, value) in enumerate(metrics.items()):
        key = f"{path}{place if path == 'per_class_accuracy.' else name}"
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            numbers |= told_numbers(value, f"{key}.")
        else:
            numbers[key] = value
    return numbers


def of_answers(arrays: Arrays) -> Numbers:
    """Measure the most probable classes and the uncertainties."""
    label, answer = (torch.from_numpy(arrays[name]) for name in ("label", "answer"))
    right = answer == label
    present = label.unique()
    probability = torch.from_numpy(arrays["top_probability"])  # only the kept ones
    place = (~right).long()  # of the right one among them, or any other
    numbers: Numbers = {
        "images": len(label),
        "accuracy": percent_right(answer, label),
        "macro_f1": macro_f1(answer, label, present),
        "ece": 100 * expected_calibration_error(probability, place),
        "adaptive_ece": 100 * adaptive_calibration_error(probability, place),
    }
    for order, of_class in enumerate(present):
        share = percent_right(answer[label == of_class], of_class)
        numbers[f"per_class_accuracy.{order}"] = share
    for name in ("max_probability", "energy", "vacuity", "conflict"):
        if name in arrays:
            found = doubt(torch.from_numpy(arrays[name]), ~right)
            numbers |= {f"uncertainty.{name}.{key}": value for key, value in found.items()}
    return numbers


def macro_f1(answer: Tensor, label: Tensor, present: Tensor) -> float:
    """Mean over the classes that occur of 2 · right / (answered + labelled), in percent."""
    scores = [
        2
        * ((answer == one) & (label == one)).sum()
        / ((answer == one).sum() + (label == one).sum())
        for one in present
    ]
    return 100 * torch.stack(scores).double().mean().item()


def of_votes(arrays: Arrays) -> Numbers:
    """Measure each vote alone, and the means of vacuity and conflict."""
    label = torch.from_numpy(arrays["label"])
    numbers: Numbers = {}
    for place, vote in enumerate(arrays.get("vote", ())):
        numbers[f"template_accuracy.{place}"] = percent_right(torch.from_numpy(vote), label)
    for name in ("vacuity", "conflict"):
        if name in arrays:
            numbers[f"mean_{name}"] = float(arrays[name].mean(dtype=float))
    return numbers


def of_halves(arrays: Arrays, base: int) -> Numbers:
    """Measure the answers to images of base and new classes together; base: number of base classes."""
    label, answer = (torch.from_numpy(arrays[name]) for name in ("label", "answer"))
    is_new = label >= base
    signs = ("base_probability", "new_probability", "max_probability", "energy", "vacuity")
    return {
        "open.base_accuracy": percent_right(answer[~is_new], label[~is_new]),
        "open.new_accuracy": percent_right(answer[is_new], label[is_new]),
        **{
            f"open.auroc.{name}": auroc(torch.from_numpy(arrays[name]), is_new)
            for name in (*signs, "conflict")
            if name in arrays
        },
    }


def of_labels(arrays: Arrays, classnames: Sequence[str]) -> Numbers:
    """Measure the probabilities of labels at their thresholds. A label has one threshold for all
    pictures, or one for each held-out picture."""
    probability = arrays["probability"]
    truth = arrays["truth"]
    numbers = told_numbers(measure_multi_label(probability, given_in(arrays), truth, classnames))
    threshold = arrays["threshold"][0]
    if len(arrays["threshold"]) > 1:  # folds
        threshold = best_thresholds(probability, truth)
    for name, value in zip(classnames, threshold):
        numbers[f"per_label.{name}.threshold"] = float(value) if numpy.isfinite(value) else None
    return numbers


def agree(told: object, measured: float | None, slack: float) -> bool:
    """Whether two numbers are one, but for rounding and as much as ``slack``."""
    if not isinstance(told, (int, float)) or measured is None:
        return told is measured
    return math.isclose(told, measured, rel_tol=SUM_ROUNDING, abs_tol=max(slack, 1e-6))


def number_text(number: float | None) -> str:
    return "none" if number is None else f"{number:.6g}"

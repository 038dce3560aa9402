"""How much factors influence a run: measures on answers and on trained prompts, see ``analysis.factors``."""

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
from PIL.Image import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.drawn.factors import (
    FACTORS,
    LEVELS,
    OpenMojiFactors,
    code_of,
    compose,
    levels_of,
    own_level,
)
from results.kept import read_kept, write_kept
from results.runs import Arrays, is_right
from trainers.classifier.prompted import PromptedClassifier
from trainers.common.errors import UserError
from trainers.common.record_file import Record

FORMAT = 1  # of factors.json; to be raised when a field changes its meaning
FILE = "factors.json"
OBJECT = "object"  # the probe for the class
GROUP = 10  # images that a group has at least
FOLDS = 5
STRENGTH = 0.1  # C of the probes: features are many, images few


Measures = dict[str, Any]  # what ``measure`` finds


# ---- measures on answers ----


def worst_group_accuracy(right: numpy.ndarray, level: numpy.ndarray, own: numpy.ndarray) -> float:
    """The lowest accuracy, in percent, of the groups that ``analysis.factors`` describes.

    Args:
        right: (N,) bool; level: (N,) the factor's, as shown; own: (N,) bool, whether it is that of the image's class.
    """
    members = Counter(zip(level.tolist(), own.tolist()))
    groups = [right[(level == shown) & (own == fits)] for shown, fits in sorted(members)]
    while len(groups) > 1 and min(map(len, groups)) < GROUP:
        first, second, *groups = sorted(groups, key=len)
        groups.append(numpy.concatenate([first, second]))
    return 100 * min(group.mean() for group in groups)


def information_flow(answers: numpy.ndarray) -> float:
    """Information flow, in nats, from a factor to the answer: the mean entropy of an emoji's answers over the factor's levels.

    Args:
        answers: (N, L), the class that is answered for each of N emojis under each of L levels.

    Returns:
        from 0 to ln L.
    """
    share = (answers[:, :, None] == answers[:, None]).mean(
        axis=2
    )  # (N, L): how many of the levels have that level's answer
    return float(-numpy.log(share).mean())


def probe_accuracy(features: numpy.ndarray, targets: Sequence[int]) -> float:
    """Accuracy of a cross-validated linear probe, in percent.

    Args:
        features: (N, E); targets: (N,), of which each value occurs at least ``FOLDS`` times.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return float(100 * cross_val_score(probe, features, targets, cv=folds).mean())


def chance(targets: Sequence[Hashable]) -> float:
    """Accuracy, in percent, of the one answer that is right most often."""
    return 100 * max(Counter(targets).values()) / len(targets)


def measured_on_answers(aligned: Arrays, reversed_: Arrays, factor: str) -> dict[str, float]:
    """``worst group`` and ``flipped`` of a run, in percent.

    Args:
        aligned, reversed_: arrays of the run's answers to the two versions, see ``trainers.evaluation.prediction.per_image``.
        factor: the correlated one.

    Raises:
        UserError: they are answers to different emojis.
    """
    codes = [
        [os.path.splitext(os.path.basename(name))[0] for name in answers["image"]]
        for answers in (aligned, reversed_)
    ]
    if codes[0] != codes[1]:
        raise UserError(
            "the aligned and the reversed test have other emojis, or in another order: run them again"
        )
    levels = [
        [
            levels_of(code, label, "test", version, factor)[factor]
            for code, label in zip(codes[0], answers["label"].tolist())
        ]
        for version, answers in (("aligned", aligned), ("reversed", reversed_))
    ]
    level = numpy.concatenate(levels)  # (2N,)
    right = numpy.concatenate([is_right(aligned), is_right(reversed_)])
    own = level == own_level(numpy.concatenate([aligned["label"], reversed_["label"]]))
    return {
        "worst group": worst_group_accuracy(right, level, own),
        "flipped": float(100 * (aligned["top"][:, 0] != reversed_["top"][:, 0]).mean()),
    }


# ---- measures on the trained prompts ----


@lru_cache(maxsize=1)
def test_emojis(classes: int) -> list[tuple[str, int, dict[str, int]]]:
    """(hexcode, label, levels of the independent version) of the test emojis of the first ``classes`` classes."""
    return [
        (code_of(image), image.label, levels_of(code_of(image), image.label, "test"))
        for image in OpenMojiFactors.list_images("")[2]
        if image.label < classes
    ]


@lru_cache(maxsize=1)
def interventions(classes: int) -> tuple[list[Image], numpy.ndarray]:
    """Pictures of every second test emoji under every level of each factor.

    Returns:
        list of pictures, each once, and (F, N, L) indices into it, in the order of ``FACTORS``.
    """
    found: dict[tuple[Any, ...], int] = {}
    pictures: list[Image] = []
    indices = numpy.empty((len(FACTORS), len(test_emojis(classes)[::2]), LEVELS), int)
    for number, (code, _, levels) in enumerate(test_emojis(classes)[::2]):
        for factor, level in numpy.ndindex(len(FACTORS), LEVELS):
            changed = {**levels, FACTORS[factor]: level}
            key = (code, *changed.values())
            if key not in found:
                found[key] = len(pictures)
                pictures.append(compose(code, changed))
            indices[factor, number, level] = found[key]
    return pictures, indices


def measure(classifier: PromptedClassifier) -> Measures:
    """Information flow and probe accuracies of a trained run's prompts.

    Returns:
        dict of ``flow``: factor → nats; ``probes``: for each template, factor or ``object`` → percent; ``chance``: factor or ``object`` →
        percent.
    """
    classes = len(classifier.classnames)
    pictures, indices = interventions(classes)
    answers = classifier.predict(pictures).probabilities.argmax(axis=1)[indices]  # (F, N, L)
    emojis = test_emojis(classes)
    targets = {
        **{factor: [levels[factor] for _, _, levels in emojis] for factor in FACTORS},
        OBJECT: [label for _, label, _ in emojis],
    }
    features = classifier.embed_image(
        [compose(code, levels) for code, _, levels in emojis]
    )  # (N, M or 1, E)
    return {
        "flow": {factor: information_flow(moved) for factor, moved in zip(FACTORS, answers)},
        "probes": [
            {name: probe_accuracy(template, values) for name, values in targets.items()}
            for template in features.swapaxes(0, 1)
        ],
        "chance": {name: chance(values) for name, values in targets.items()},
    }


def measures_of(
    folder: str, record: Record, made: dict[tuple[str | None, ...], Measures]
) -> Measures:
    """``measure`` of a run, read from its folder, or made and written there.

    Args:
        made: cache, prompts → measures: a trainer that learns nothing has the same for every seed and factor.
    """
    origin = {key: record[key] for key in ("trainer", "prompts_hash", "backbone_hash")}
    key = tuple(origin.values())
    kept = read_kept(Path(folder) / FILE, FORMAT, origin)
    if key not in made:
        made[key] = kept or measure(PromptedClassifier.load(folder))
    if kept is None:
        write_kept(Path(folder) / FILE, FORMAT, origin, made[key])
    return made[key]

"""Runs of several labels per picture in a report: how good they are, label by label, and their worst
mistakes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from results.runs import Arrays, FinishedRun
from trainers.common.console import counted
from trainers.evaluation.multi_label import f1_interval

from .pictures import Found, thumbnail

MISTAKES = 24  # pictures that are shown
BARS = 8  # labels of each: those that are most wrong
PROMISED = {
    "--max-error": "of the given labels are wrong",
    "--max-missed": "of the labels are missed",
}


class LabelRow(NamedTuple):
    """One label; shares in percent.

    Attributes:
        name: of the label; positives: how many pictures have it.
        average_precision, f1, ece: see ``measure_multi_label``.
        threshold: the least probability under which it is given.
        instead: the label that is wrongly given most often where this one is missed, and how often; None
            where there is none.
    """

    name: str
    positives: int
    average_precision: float
    f1: float
    threshold: float
    ece: float
    instead: tuple[str, int] | None


class Bar(NamedTuple):
    """A label of a picture: its probability and, in the picture's fold, its threshold, in percent;
    ``verdict``: right, wrong (given) or missed."""

    name: str
    probability: float
    threshold: float
    verdict: str


class Mistake(NamedTuple):
    """A picture that is given other labels than it has.

    Attributes:
        image: its name; picture: a data URI, None where the image is not at hand.
        bars: of labels that it has or is given, at most ``BARS``, the most probable first.
    """

    image: str
    picture: str | None
    bars: list[Bar]


@dataclass(frozen=True)
class SetPage:
    """How good a run is; shares in percent.

    Attributes:
        title: which run.
        tested_on: on how many pictures, in words.
        map, map_by_names, micro_f1, macro_f1, ece: see ``docs/several_labels.md``.
        interval: ends of the 95 % interval of ``micro_f1``, whose unit is a group; None without answers.
        promises: what can be promised, in sentences.
        labels: from the least average precision on.
        mistakes: the first ``MISTAKES``, the least probable sets of labels first.
    """

    title: str
    tested_on: str
    map: float
    map_by_names: float
    micro_f1: float
    macro_f1: float
    ece: float
    interval: tuple[float, float] | None
    promises: list[str]
    labels: list[LabelRow]
    mistakes: list[Mistake]


def set_page(run: FinishedRun, root: str | None) -> SetPage:
    """The ``SetPage`` of a run; root: the file or folder of its pictures, None for names only."""
    measured = run.metrics
    answers = run.answers
    pictures = counted(measured["images"], "picture")
    interval = None
    instead: dict[str, tuple[str, int]] = {}
    mistakes: list[Mistake] = []
    if answers is not None:
        given = given_in(answers)
        groups = len(numpy.unique(answers["group"]))
        if groups < measured["images"]:
            pictures += f" in {counted(groups, 'group')} that are counted once"
        interval = f1_interval(given, answers["truth"], answers["group"])
        instead = dict(taken_for(given, answers["truth"], run.classnames))
        mistakes = [*worst_mistakes(run, answers, given, root)]
    what = run.record["run"]
    rows = [
        LabelRow(
            name=name,
            positives=own["positives"],
            average_precision=own["average_precision"],
            f1=own["f1"],
            threshold=100 * run.record["thresholds"][name],
            ece=own["ece"],
            instead=instead.get(name),
        )
        for name, own in measured["per_label"].items()
    ]
    return SetPage(
        title=f"{run.model}, {what['dataset']}, seed {run.seed}",
        tested_on=f"all {pictures}, by {run.record['folds']}-fold cross-validation",
        map=measured["map"],
        map_by_names=measured["map_by_names"],
        micro_f1=measured["micro_f1"],
        macro_f1=measured["macro_f1"],
        ece=measured["ece"],
        interval=interval,
        promises=[*promises_of(run)],
        labels=sorted(rows, key=lambda row: row.average_precision),
        mistakes=mistakes,
    )


def promises_of(run: FinishedRun) -> Iterator[str]:
    """What can be promised, a sentence for each option."""
    if "found_in_part" in run.record:
        yield "Nothing: copies were found only in part. Name what belongs together in a column group"
        return
    for option, what in PROMISED.items():
        share = run.record["promises"].get(option)
        if share is None:
            yield f"{option} can't be promised yet: add pictures"
        else:
            yield f"At most {100 * share:g} % {what} ({option} {share:g}), with 95 % confidence"


def given_in(answers: Arrays) -> numpy.ndarray:
    """The labels (N, K) that are given by the thresholds of each picture's fold."""
    given: numpy.ndarray = answers["probability"] >= answers["threshold"][answers["fold"]]
    return given


def taken_for(
    given: numpy.ndarray, truth: numpy.ndarray, names: list[str]
) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each label that is missed, with the one that is wrongly given most often there, and how often.

    Args:
        given, truth: (N, K), bool; names: K.
    """
    missed = (truth & ~given).astype(int)
    wrong = (given & ~truth).astype(int)
    together = missed.T @ wrong  # (K missed, K wrongly given)
    for name, numbers in zip(names, together):
        if numbers.any():
            yield name, (names[numbers.argmax()], int(numbers.max()))


def worst_mistakes(
    run: FinishedRun, answers: Arrays, given: numpy.ndarray, root: str | None
) -> Iterator[Mistake]:
    """The first ``MISTAKES``, see ``SetPage``."""
    truth = answers["truth"]
    right = numpy.where(truth, answers["probability"], 1 - answers["probability"])
    likelihood = numpy.log(right.clip(1e-30)).sum(axis=1)
    likelihood[(given == truth).all(axis=1)] = numpy.inf
    for index in numpy.argsort(likelihood, kind="stable")[:MISTAKES]:
        if likelihood[index] == numpy.inf:
            return
        probability = answers["probability"][index]
        threshold = answers["threshold"][answers["fold"][index]]
        shown = numpy.flatnonzero(truth[index] | given[index])
        least = shown[numpy.argsort(right[index, shown], kind="stable")][:BARS]
        order = least[numpy.argsort(-probability[least], kind="stable")]
        name = str(answers["image"][index])
        path = file_of(name, root)
        yield Mistake(
            image=name,
            picture=thumbnail(Found(path) if path else None),
            bars=[
                Bar(
                    name=run.classnames[label],
                    probability=100 * float(probability[label]),
                    threshold=100 * float(min(threshold[label], 1.0)),
                    verdict=verdict(bool(given[index, label]), bool(truth[index, label])),
                )
                for label in order
            ],
        )


def verdict(given: bool, true: bool) -> str:
    if given and true:
        return "right"
    return "wrong" if given else "missed"


def file_of(name: str, root: str | None) -> str | None:
    """The file of a picture that the file ``root``, or a folder of class folders, names so; None where it
    is not there."""
    if root is None:
        return None
    folder = root if os.path.isdir(root) else os.path.dirname(os.path.abspath(root))
    for place in (folder, os.getcwd()):
        if os.path.isfile(path := os.path.join(place, name)):
            return path
    return None

"""A report's part on multi-label runs: the ranking and giving of labels, label by label, and pictures with a
label that is probably wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy

from results.runs import Arrays, FinishedRun, RunSeries
from trainers.common.console import counted
from trainers.common.record_file import tested_on
from trainers.evaluation.multi_label import f1_interval, given_in, likelihood

from .classes import MATRIX, ClassPage, with_number
from .gallery import (
    LABEL_NEXT,
    LEAST_CERTAIN,
    MISTAKES,
    SHOWN_IMAGES,
    WRONG_LABELS,
    Bar,
    Card,
    Files,
    Gallery,
    files_of,
    in_part_of,
    list_rows,
    other_mistakes,
    pairs_of,
    parts_of,
    splits_of,
    unfamiliar_of,
    unlike_the_rest,
    unseen_of,
)
from .headlines import Headline, is_least, mean_of, number_of_images
from .pictures import Paths, thumbnail
from .review import least_certain, wrong_multi_labels

MAP = "map"  # the metric of a headline, and its name there
MEASURE = "mAP"
BARS = 8  # shown labels of a picture: the most wrong ones
NO_LABEL = "none of the labels"
LABEL_COLUMNS = (
    "label",
    "average precision",
    "pictures",
    "F1",
    "given from, %",
    "ECE",
    "wrongly given most often where it is missed",
)
MULTI_LABEL_READING = (
    "mAP is the mean of the labels' average precisions. Each label is given from the probability on "
    "that is best for its F1; in cross-validation each fold's by the thresholds of the other folds."
)
GALLERY = (
    "Pictures of one seed, each answered by a model that has not seen it, with labels that they have or "
    "are given; the line in a bar is the label's threshold. First those with a label that is probably "
    "wrong or missing, the most probably wrong first: the share of wrong labels is fitted together with a "
    "temperature. Then other mistakes, the pictures farthest from all others where that is known, near-duplicates (or other "
    "pictures of one group) in pairs, differently labelled ones first, and the least certain pictures. "
    f"{LABEL_NEXT}"
)


@dataclass(frozen=True)
class LabelRow:
    """One label; shares in percent, means over seeds, None where there are none.

    Attributes:
        name: of the label.
        positives: how many pictures have it.
        average_precision, f1, ece: of ``measure_multi_label``.
        threshold: the least probability under which it is given.
        instead: the label that is wrongly given most often where this one is missed, and how often in all
            seeds; None where there is none.
    """

    name: str
    positives: int
    average_precision: float | None
    f1: float | None
    threshold: float | None
    ece: float | None
    instead: tuple[str, int] | None

    @property
    def cells(self) -> list[str]:
        return [
            self.name,
            decimal(self.average_precision),
            str(self.positives),
            decimal(self.f1),
            decimal(self.threshold),
            decimal(self.ece),
            with_number(self.instead),
        ]


def decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


# ---- the head ----


def headline(entry: RunSeries, untrained: float | None) -> Headline:
    """The ``Headline`` of a multi-label series, whose value is its mAP; untrained: its ``zero_shot``."""
    images = number_of_images(entry)
    return Headline(
        tested_on=entry.tested_on,
        model=entry.name,
        trainer=entry.first.record["trainer"],
        zero_shot_itself=entry.is_zero_shot,
        seeds=len(entry.runs),
        images=images,
        of=tested_on(entry.first.record, images),
        measure=MEASURE,
        value=mean_of(entry, MAP),
        is_least=is_least(entry.first),
        low=None,
        high=None,
        chance=chance(entry.first),
        chance_of="the mean share of pictures that have a label",
        zero_shot=untrained,
        commonest=None,
        facts=facts(entry),
        votes="",
        warning="",
    )


def chance(run: FinishedRun) -> float:
    """The mAP of answers at random in percent: the mean over labels that occur of their share."""
    images: int = run.metrics["images"]
    positives = [own["positives"] for own in run.metrics["per_label"].values()]
    occurring = [number for number in positives if number]
    return 100 * float(numpy.mean(occurring)) / images


def facts(entry: RunSeries) -> dict[str, str]:
    """F1s, where labels are given, and the calibration error, in words."""
    made = {}
    if gives_labels(entry):
        made["F1 of all labels"] = f"{mean_of(entry, 'micro_f1'):.1f} %"
        if all(run.answers is not None for run in entry.runs):
            made["F1 of all labels"] += f" ({interval_in_words(entry)})"
        made["mean of the labels' F1"] = f"{mean_of(entry, 'macro_f1'):.1f} %"
    made["mean of the labels' ECE"] = f"{mean_of(entry, 'ece'):.1f}"
    return made


def gives_labels(entry: RunSeries) -> bool:
    """Whether labels are given; the untrained CLIP ranks them alone."""
    return all("micro_f1" in run.metrics for run in entry.runs)


def interval_in_words(entry: RunSeries) -> str:
    """The 95 % interval of the F1 of all labels, means of the seeds' ends, and its unit."""
    ends = []
    for run in entry.runs:
        answers = run.known_answers
        ends.append(f1_interval(given_in(answers), answers["truth"], answers["group"]))
    low, high = numpy.mean(ends, axis=0)
    words = f"95 % interval {low:.1f} to {high:.1f}"
    group = entry.first.known_answers["group"]
    groups = len(numpy.unique(group))
    if groups < len(group):
        words += f", each of {counted(groups, 'group')} counted once"
    return words


# ---- label by label ----


def class_page(entry: RunSeries, _: Paths) -> ClassPage:
    """The ``ClassPage`` of a multi-label series, which shows no pictures."""
    rows = label_rows(entry)
    return ClassPage(
        title=entry.where,
        seeds=len(entry.runs),
        heading="The labels, the least average precision first",
        columns=LABEL_COLUMNS,
        classes=rows,
        is_whole=len(rows) <= MATRIX,
        reading=MULTI_LABEL_READING,
        names=[],
        rows=[],
        left_out=0,
        confusions=[],
    )


def label_rows(entry: RunSeries) -> list[LabelRow]:
    """The rows of all labels, from the least average precision on; last those without a picture."""
    given = numpy.concatenate([given_in(run.known_answers) for run in entry.runs])
    truth = numpy.concatenate([run.known_answers["truth"] for run in entry.runs])
    instead = taken_for(given, truth, entry.first.classnames)
    rows = []
    for name in entry.first.classnames:
        of_seeds = [run.metrics["per_label"][name] for run in entry.runs]
        threshold = mean_if_known(of_seeds, "threshold")
        rows.append(
            LabelRow(
                name=name,
                positives=round(mean_if_known(of_seeds, "positives") or 0),
                average_precision=mean_if_known(of_seeds, "average_precision"),
                f1=mean_if_known(of_seeds, "f1"),
                threshold=None if threshold is None else 100 * threshold,
                ece=mean_if_known(of_seeds, "ece"),
                instead=instead.get(name),
            )
        )
    return sorted(rows, key=lambda row: (row.average_precision is None, row.average_precision or 0))


def mean_if_known(of_seeds: Sequence[dict[str, Any]], name: str) -> float | None:
    """Mean of a value over seeds; None where one of them lacks it."""
    known = [of_seed[name] for of_seed in of_seeds if of_seed.get(name) is not None]
    return float(numpy.mean(known)) if len(known) == len(of_seeds) else None


def taken_for(
    given: numpy.ndarray, truth: numpy.ndarray, names: Sequence[str]
) -> dict[str, tuple[str, int]]:
    """Each label that is missed where another is wrongly given → the one that is so most often, and how
    often.

    Args:
        given, truth: (N, K), bool; names: K.
    """
    missed = (truth & ~given).astype(int)
    wrong = (given & ~truth).astype(int)
    together = missed.T @ wrong  # (K missed, K wrongly given)
    found = {}
    for name, numbers in zip(names, together):
        if numbers.any():
            found[name] = names[numbers.argmax()], int(numbers.max())
    return found


# ---- pictures ----


def held_out(run: FinishedRun) -> Arrays:
    """The answers of all ``parts_of`` a multi-label run: ``image``, ``split`` (N,); ``truth``, ``given``
    (N, K), bool; ``probability`` and the ``threshold`` of the picture's fold (N, K); where that is known of all
    ``unfamiliar`` (N,)."""
    parts = parts_of(run)
    joined = {}
    for name in ("image", "truth", "probability", "group"):
        joined[name] = numpy.concatenate([answers[name] for answers in parts.values()])
    joined["given"] = numpy.concatenate([given_in(answers) for answers in parts.values()])
    thresholds = [answers["threshold"][answers["fold"]] for answers in parts.values()]
    joined["threshold"] = numpy.concatenate(thresholds)
    joined["split"] = splits_of(parts)
    if all("unfamiliar" in answers for answers in parts.values()):
        joined["unfamiliar"] = numpy.concatenate([own["unfamiliar"] for own in parts.values()])
    return joined


def orders(answers: Arrays, listed: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Kind, such as ``LEAST_CERTAIN`` → indices of such pictures, in order; none where no label is ever given;
    listed: indices of pictures with a label that is probably wrong."""
    if numpy.isinf(answers["threshold"]).all():
        return {}
    probability = likelihood(answers["given"], answers["probability"])
    right = (answers["given"] == answers["truth"]).all(axis=1)
    return {
        WRONG_LABELS: listed,
        MISTAKES: other_mistakes(right, listed, probability),
        **unlike_the_rest(answers),
        LEAST_CERTAIN: least_certain(1 - probability),
    }


def gallery(entry: RunSeries, paths: Paths) -> Gallery:
    """The ``Gallery`` of the first seed of a multi-label series; of pictures that ``paths`` lacks there
    are names only."""
    run = entry.first
    answers = held_out(run)
    files = files_of(answers, paths)
    wrong = wrong_multi_labels(answers["probability"], answers["truth"])
    found = orders(answers, wrong.listed)
    cards = {}
    for kind, order in found.items():
        cards[kind] = [card(run, answers, index, files) for index in order[:SHOWN_IMAGES]]
    truth = [", ".join(names_of(run, labels)) or NO_LABEL for labels in answers["truth"]]
    return Gallery(
        title=f"{entry.where}, seed {run.seed}",
        reading=GALLERY,
        wrong=wrong.says() if cards else "",
        cards=cards,
        in_part=in_part_of(run, answers, truth, paths),
        pairs=pairs_of(answers, truth, files) if cards else [],
        rows=list_rows(entry, found, partial(list_row, run, answers, files)),
    )


def card(run: FinishedRun, answers: Arrays, index: int, files: Files) -> Card:
    """Return the ``Card`` of one picture; answers: of ``held_out``; files: of ``files_of``."""
    given = answers["given"][index]
    truth = answers["truth"][index]
    one = slice(index, index + 1)
    probability = likelihood(answers["given"][one], answers["probability"][one])
    return Card(
        image=answers["image"][index],
        split=answers["split"][index],
        picture=thumbnail(files[index]),
        truth=", ".join(names_of(run, truth)) or NO_LABEL,
        answer=", ".join(names_of(run, given)) or NO_LABEL,
        probability=100 * float(probability[0]),
        right=bool((given == truth).all()),
        votes=[],
        bars=bars_of(run, answers, index),
        unseen=unseen_of(run, files[index]),
    )


def names_of(run: FinishedRun, labels: numpy.ndarray) -> list[str]:
    """Names of labels (K,), bool."""
    return [run.classnames[label] for label in numpy.flatnonzero(labels)]


def bars_of(run: FinishedRun, answers: Arrays, index: int) -> list[Bar]:
    """Return the bars of the labels that a picture has or is given; at most ``BARS``, the most wrong ones."""
    given = answers["given"][index]
    truth = answers["truth"][index]
    probability = answers["probability"][index]
    right = numpy.where(truth, probability, 1 - probability)
    shown = numpy.flatnonzero(truth | given)
    shown = shown[numpy.argsort(right[shown], kind="stable")][:BARS]
    shown = shown[numpy.argsort(-probability[shown], kind="stable")]
    bars = []
    for label in shown:
        least = min(float(answers["threshold"][index, label]), 1.0)
        bars.append(
            Bar(
                name=run.classnames[label],
                probability=100 * float(probability[label]),
                threshold=100 * least,
                verdict=verdict(bool(given[label]), bool(truth[label])),
            )
        )
    return bars


def verdict(given: bool, true: bool) -> str:
    if given and true:
        return "right"
    return "wrong" if given else "missed"


def list_row(run: FinishedRun, answers: Arrays, files: Files, index: int) -> tuple[object, ...]:
    """Return the ``LIST_COLUMNS`` of one picture; answers: of ``held_out``; files: of ``files_of``."""
    given = answers["given"][index]
    probability = float(likelihood(given[None], answers["probability"][[index]])[0])
    return (
        answers["image"][index],
        answers["split"][index],
        ";".join(names_of(run, answers["truth"][index])),
        ";".join(names_of(run, given)),
        probability,
        1 - probability,
        unfamiliar_of(answers, index),
        unseen_of(run, files[index]),
    )

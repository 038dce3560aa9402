"""The gallery of a report, and the same images as lists beside the page; here for runs with one label
per image: images whose label is probably wrong, and the least certain ones, with each template's vote."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy

from results.answers import UNCERTAINTY
from results.rows import SERIES_HEADS
from results.runs import Arrays, FinishedRun, RunSeries
from trainers.common.console import csv_text
from trainers.common.errors import UserError
from trainers.common.files import check_output, write_text
from trainers.common.record_file import UNFAMILIAR, nested

from .pictures import Found, Paths, thumbnail, unseen_share
from .review import WrongLabels, least_certain, probably_wrong, wrong_labels

SHOWN_IMAGES = 8  # images of each kind
MOST_LISTED = 1000  # images of a run in a list, at most
WRONG_LABELS = "Labels that are probably wrong"
MISTAKES = "Other mistakes, the surest first"
UNLIKE_OTHERS = "Unlike the rest of the pictures"
LEAST_CERTAIN = "The least certain"
LABEL_NEXT = (
    "These have labels already: of pictures without labels, python predict.py --run RUN new_photos --label-next 50 writes "
    "those to label next."
)
LIST_ENDINGS = {WRONG_LABELS: "wrong_labels", LEAST_CERTAIN: "least_certain"}  # of the lists' files
READING = (
    "Images of one seed, each answered by a model that has not seen it. First those whose given label "
    "is probably wrong, or where the model is wrongly sure, the most probably wrong first: the share of "
    "wrong labels is fitted together with a temperature. Then other mistakes, the images farthest from all others where "
    "that is known, near-duplicates (or other images of one group) in pairs, differently labelled ones first, and the least "
    f"certain images. {LABEL_NEXT} Fused votes are shown with their probability, "
    "their weight in the answer and their vacuity, the share of belief that they hold back."
)
LIST_COLUMNS = (
    "image",
    "split",
    "label",
    "answer",
    "probability",
    "uncertainty",
    "unfamiliar",
    "unseen",
)
MUCH_UNSEEN = 0.34  # share from which a card says it: just more than of the usual 3 : 2
Files = Sequence[Found | None]  # of each image
Rows = dict[str, list[tuple[object, ...]]]  # kind of images → rows of a list


@dataclass(frozen=True)
class Vote:
    """One template's vote for an image.

    Attributes:
        voter: the template, as in "template 1".
        name: of the class that it finds most probable.
        probability: of that class, in percent.
        weight: share of the template in the answer, in percent.
        vacuity: in (0, 1]; None where the trainer has no evidence.
    """

    voter: str
    name: str
    probability: float
    weight: float
    vacuity: float | None


class Bar(NamedTuple):
    """A label of an image: its probability and, in the image's fold, its threshold, in percent;
    ``verdict``: right, wrong (given) or missed."""

    name: str
    probability: float
    threshold: float
    verdict: str


@dataclass(frozen=True)
class Card:
    """One image and the answer to it.

    Attributes:
        image: its name.
        split: ``train``, ``val`` or ``test``.
        picture: a data URI; None where the image is not at hand.
        truth: name of the class of its given label, or names of all its labels.
        answer: name of the most probable class, or of all labels that are given.
        probability: of the answer, in percent.
        right: whether the answer is the given label.
        votes: of the templates; empty where they don't vote.
        bars: of labels that a multi-label image has or is given, the most probable first.
        unseen: of ``unseen_of``.
    """

    image: str
    split: str
    picture: str | None
    truth: str
    answer: str
    probability: float
    right: bool
    votes: list[Vote]
    bars: list[Bar]
    unseen: float | None

    @property
    def is_much_unseen(self) -> bool:
        """Whether so much was cut off that the answer may lack what the label names."""
        return self.unseen is not None and self.unseen >= MUCH_UNSEEN


class Twin(NamedTuple):
    """One of two images of a group: its name, its data URI (None where it is not at hand), and its given labels."""

    image: str
    picture: str | None
    truth: str


class Pair(NamedTuple):
    """Two images of a group, with different labels where the group has such."""

    first: Twin
    second: Twin
    size: int  # images of the group


@dataclass(frozen=True)
class Gallery:
    """The gallery of one run.

    Attributes:
        title: the run's name.
        reading: the explanation of the pictures.
        wrong: how many labels are probably wrong, in a sentence; "" for no sentence.
        cards: kind, such as ``LEAST_CERTAIN`` → the first ``SHOWN_IMAGES`` images of that kind.
        in_part: the pairs that show that copies were found only in part.
        pairs: of near-duplicates, or of images of one group; at most ``SHOWN_IMAGES``.
        rows: kind of ``LIST_ENDINGS`` → a row of ``SERIES_HEADS`` and ``LIST_COLUMNS`` for each such image, at
            most ``MOST_LISTED``.
    """

    title: str
    reading: str
    wrong: str
    cards: dict[str, list[Card]]
    in_part: list[list[Twin]]
    pairs: list[Pair]
    rows: Rows


def in_order(answered: Sequence[RunSeries]) -> list[RunSeries]:
    """Series in the order of their galleries: those whose templates vote first, untrained ones last."""
    return sorted(answered, key=lambda entry: (entry.is_zero_shot, not entry.has("vote")))


def parts_of(run: FinishedRun) -> dict[str, Arrays]:
    """Return split → the answers to its images by a classifier that has not seen them: validation and test, and,
    if there are some, out-of-fold training images."""
    parts = {"train": run.training_answers, "val": run.validation_answers}
    there = {split: answers for split, answers in parts.items() if answers is not None}
    return {**there, "test": run.known_answers}


def held_out(run: FinishedRun) -> Arrays:
    """The answers of all ``parts_of`` a run for one label per image; ``split`` (N,) says which.

    Raises:
        UserError: they are of several runs.
    """
    there = parts_of(run)
    joined = {}
    for name, values in run.known_answers.items():
        if name == "vote_weight":  # the same for all images
            joined[name] = values
        elif all(name in answers for answers in there.values()):
            # their dimension: (N,), (N, T), (N, K), (M, N)
            images = 0 if name.startswith(("top", "probability")) else -1
            try:
                joined[name] = numpy.concatenate(
                    [answers[name] for answers in there.values()], axis=images
                )
            except ValueError as error:
                raise UserError(
                    f"the answers to images of several splits in {run.folder} don't fit together "
                    f"({name}: {error}): run it again"
                ) from error
    joined["split"] = splits_of(there)
    return joined


def splits_of(parts: Mapping[str, Arrays]) -> numpy.ndarray:
    """Return the split (N,) of each image; parts: of ``parts_of``."""
    names = [numpy.full(len(answers["image"]), split) for split, answers in parts.items()]
    return numpy.concatenate(names)


def gallery(entry: RunSeries, paths: Paths) -> Gallery:
    """The ``Gallery`` of the first seed of a series for one label per image; of images that ``paths``
    lacks there are names only."""
    run = entry.first
    answers = held_out(run)
    files = files_of(answers, paths)
    wrong = wrong_in(answers)
    found = orders(answers, wrong.listed)
    cards = {}
    for kind, order in found.items():
        cards[kind] = [card(run, answers, index, files) for index in order[:SHOWN_IMAGES]]
    truth = [run.class_name(label) for label in answers["label"]]
    return Gallery(
        title=f"{entry.where}, seed {run.seed}",
        reading=READING,
        wrong=wrong.says(),
        cards=cards,
        in_part=in_part_of(run, answers, truth, paths),
        pairs=pairs_of(answers, truth, files),
        rows=list_rows(entry, found, partial(list_row, run, answers, files)),
    )


def wrong_in(answers: Arrays) -> WrongLabels:
    """Return the probably wrong labels of ``held_out`` answers, by all probabilities where these are kept."""
    if "probability" in answers:
        return wrong_labels(answers["probability"], answers["label"])
    return probably_wrong(answers["label"], answers["top"], answers["top_probability"])


def orders(answers: Arrays, listed: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Kind, such as ``LEAST_CERTAIN`` → indices of such images, those to look at first in front; listed: indices
    of images whose label is probably wrong."""
    mistakes = other_mistakes(answers["right"], listed, answers["top_probability"][:, 0])
    return {
        WRONG_LABELS: listed,
        MISTAKES: mistakes,
        **unlike_the_rest(answers),
        LEAST_CERTAIN: least_certain(answers[UNCERTAINTY]),
    }


def other_mistakes(
    right: numpy.ndarray, listed: numpy.ndarray, probability: numpy.ndarray
) -> numpy.ndarray:
    """Return indices of wrong answers that are not listed yet, the most probable first.

    Args:
        right: (N,) bool; listed: indices; probability: (N,), of the answers.
    """
    wrong = numpy.setdiff1d(numpy.flatnonzero(~right), listed)
    surest_first: numpy.ndarray = wrong[numpy.argsort(-probability[wrong], kind="stable")]
    return surest_first


def unlike_the_rest(answers: Arrays) -> dict[str, numpy.ndarray]:
    """``UNLIKE_OTHERS`` → indices of images farther from all others than most are; {} where nothing says it."""
    if "unfamiliar" not in answers:
        return {}
    p_values = answers["unfamiliar"]
    order = numpy.argsort(p_values, kind="stable")
    return {UNLIKE_OTHERS: order[p_values[order] <= UNFAMILIAR]}


def files_of(answers: Arrays, paths: Paths) -> Files:
    """Return the file of each image, None where it is not at hand; answers: of ``held_out``."""
    number = Counter(answers["image"].tolist())
    files = []
    for name, split in zip(answers["image"].tolist(), answers["split"].tolist()):
        # the path of a name that images of several splits share belongs to the one that was held out
        is_known = split != "train" or number[name] == 1
        files.append(paths.get(name) if is_known else None)
    return files


def pairs_of(answers: Arrays, truth: Sequence[str], files: Files) -> list[Pair]:
    """Return two images of each group of several, differently labelled ones first; none where groups are unknown.

    Args:
        answers: of N images, with their ``group``; truth: N given labels in words; files: of ``files_of``.
    """
    members = defaultdict(list)
    for index, group in enumerate(answers.get("group", ())):
        members[int(group)].append(index)
    chosen = []
    for of_group in members.values():
        first = of_group[0]
        others = [index for index in of_group if truth[index] != truth[first]]
        if len(of_group) > 1:
            chosen.append((first, [*others, of_group[1]][0], len(of_group)))
    chosen.sort(key=lambda pair: truth[pair[0]] == truth[pair[1]])

    def twin(index: int) -> Twin:
        return Twin(answers["image"][index], thumbnail(files[index]), truth[index])

    return [Pair(twin(first), twin(second), size) for first, second, size in chosen[:SHOWN_IMAGES]]


def in_part_of(
    run: FinishedRun, answers: Arrays, truth: Sequence[str], paths: Paths
) -> list[list[Twin]]:
    """Return the pairs by which a run warns that copies were found only in part, none where it does not.

    Args:
        answers: to N images; truth: N given labels in words, "" stands for that of an image without an answer.
    """
    label_of = dict(zip(answers["image"].tolist(), truth))
    pairs = []
    for names in run.record.get("found_in_part", ()):
        pairs.append(
            [Twin(name, thumbnail(paths.get(name)), label_of.get(name, "")) for name in names]
        )
    return pairs


def card(run: FinishedRun, answers: Arrays, index: int, files: Files) -> Card:
    """Return the ``Card`` of one image; answers: of ``held_out``; files: of ``files_of``."""
    return Card(
        image=answers["image"][index],
        split=answers["split"][index],
        picture=thumbnail(files[index]),
        truth=run.class_name(answers["label"][index]),
        answer=run.class_name(answers["answer"][index]),
        probability=100 * float(answers["top_probability"][index, 0]),
        right=bool(answers["right"][index]),
        votes=votes_on(run, answers, index),
        bars=[],
        unseen=unseen_of(run, files[index]),
    )


def unseen_of(run: FinishedRun, file: Found | None) -> float | None:
    """Return the share of one image that was cut off before it was answered, in [0, 1); None where it is not at
    hand; file: of ``files_of``."""
    is_whole = nested(run.record, "config", "INPUT", "SQUASH")
    return 0.0 if is_whole else unseen_share(file)


def votes_on(run: FinishedRun, answers: Arrays, index: int) -> list[Vote]:
    """The vote of each template on an image, empty where templates don't vote; answers: see
    ``held_out``."""
    votes = []
    for template, labels in enumerate(answers.get("vote", ())):  # (N,) each
        weight = 1 / len(answers["vote"])
        if "vote_weight" in answers:
            weight = answers["vote_weight"][template]
        vacuity = None
        if "vote_vacuity" in answers:
            vacuity = float(answers["vote_vacuity"][template, index])
        votes.append(
            Vote(
                voter=f"template {template + 1}",
                name=run.class_name(labels[index]),
                probability=100 * float(answers["vote_probability"][template, index]),
                weight=100 * float(weight),
                vacuity=vacuity,
            )
        )
    return votes


def list_row(run: FinishedRun, answers: Arrays, files: Files, index: int) -> tuple[object, ...]:
    """Return the ``LIST_COLUMNS`` of one image; answers: of ``held_out``; files: of ``files_of``."""
    return (
        answers["image"][index],
        answers["split"][index],
        run.class_name(answers["label"][index]),
        run.class_name(answers["answer"][index]),
        float(answers["top_probability"][index, 0]),
        float(answers[UNCERTAINTY][index]),
        unfamiliar_of(answers, index),
        unseen_of(run, files[index]),
    )


def list_rows(
    entry: RunSeries,
    found: Mapping[str, numpy.ndarray],
    row_of: Callable[[int], tuple[object, ...]],
) -> Rows:
    """Return the rows of a ``Gallery`` of a series.

    Args:
        found: kind → indices of images; row_of: index → the image's ``LIST_COLUMNS``.
    """
    rows: Rows = {}
    for kind in [kind for kind in LIST_ENDINGS if kind in found]:
        listed = found[kind][:MOST_LISTED]
        rows[kind] = [(entry.tested_on, entry.name, *row_of(index)) for index in listed]
    return rows


def unfamiliar_of(answers: Arrays, index: int) -> float | str:
    """Return the p-value of an image that is unlike the run's; "" where nothing says it, as of images that were
    held out from a training in epochs."""
    return float(answers["unfamiliar"][index]) if "unfamiliar" in answers else ""


def write_lists(galleries: Sequence[Gallery], start: str) -> list[str]:
    """Writes the rows of galleries as tables, such as ``<start>_least_certain.csv``.

    Returns:
        the names of the files.
    """
    rows: Rows = defaultdict(list)
    for made in galleries:
        for kind, of_gallery in made.rows.items():
            rows[kind] += of_gallery
    written = []
    for kind, of_kind in rows.items():
        path = f"{start}_{LIST_ENDINGS[kind]}.csv"
        check_output("the list", path, f"\ufeff{','.join(SERIES_HEADS)},image,")
        write_text(path, csv_text((*SERIES_HEADS, *LIST_COLUMNS), of_kind))
        written.append(os.path.basename(path))
    return written

"""Choice of the images to label next: images without a label in the run, one of near-duplicates."""

import base64
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.fingerprints import start_of
from trainers.common.image_files import content_hash, look_through
from trainers.common.record_file import UNFAMILIAR, is_multi_label

from ..encode import images_in
from ..evaluate import groups_of
from ..familiar import unit
from ..next_labels import is_spread, most_uncertain, next_to_label
from ..readers.csv_table import ASKED_WITH
from ..rounds import read_pictures
from .part_file import PartFile

if TYPE_CHECKING:
    from ..classifier import PromptedClassifier

log = logging.getLogger(__name__)
FEATURES_FIELD = "features"  # fields of a row, until it is written
CONTENT = "content"
STORED = "<f2"  # as which a feature's numbers are kept
LOOKED_AT = 3  # times as many candidates are looked at for near-duplicates as are asked for
RANDOM = 10  # one in so many is drawn at random
MIXED = 10  # one in so many, at most, is asked for since it is unlike the run's pictures


def with_features(
    row: Mapping[str, object], features: numpy.ndarray, path: str
) -> dict[str, object]:
    """Return a row with the features (E,) of its image and the hash of the image's bytes, which were read just now."""
    stored = base64.b64encode(features.astype(STORED).tobytes()).decode()
    return {**row, FEATURES_FIELD: stored, CONTENT: content_hash(path)}


def features_of(row: Mapping[str, object]) -> numpy.ndarray:
    """Return the features (E,) of a row's image, of length one."""
    stored = base64.b64decode(str(row[FEATURES_FIELD]))
    found = numpy.frombuffer(stored, STORED).astype(numpy.float32)
    scaled: numpy.ndarray = found / numpy.linalg.norm(found)
    return scaled


class Pool(NamedTuple):
    """Images without labels: their positions in the part file, paths, and the model's answers to them."""

    positions: list[int]
    paths: list[str]
    uncertainty: list[float]
    unfamiliar: list[float]  # p-values
    features: list[numpy.ndarray]  # (E,) each, of length one


def unlabelled(part: PartFile, labelled: Collection[str], trained_on: Collection[int]) -> Pool:
    """Return the answered images that a run has no labels of.

    Args:
        labelled: contents of the run's pictures; trained_on: as in ``fingerprints.start_of``.

    Raises:
        UserError: the run has labels of all images.
    """
    pool = Pool([], [], [], [], [])
    for position, path, row in part.answered():
        content = str(row[CONTENT])
        if content in labelled or start_of(bytes.fromhex(content)) in trained_on:
            continue
        pool.positions.append(position)
        pool.paths.append(path)
        pool.uncertainty.append(float(str(row["uncertainty"])))
        pool.unfamiliar.append(float(str(row.get("unfamiliar", 1))))
        pool.features.append(features_of(row))
    if not pool.positions:
        raise UserError("the run has labels of all these images: give others")
    return pool


def to_label(
    part: PartFile, classifier: "PromptedClassifier", folder: str, number: int, at_random: bool
) -> tuple[Iterator[Mapping[str, object]], str]:
    """Return the rows of the images to label next, and how they were chosen, in a sentence.

    Args:
        folder: of the run; number: of images.
        at_random: whether a tenth is drawn at random of all that were not chosen. Then each row says
            with which probability its image was asked for.

    Raises:
        UserError: the run has labels of all images.
    """
    pictures = read_pictures(folder)
    labelled = {picture.content for picture in pictures.values()}
    pool = unlabelled(part, labelled, classifier.trained_on.files)
    known = known_features(folder, labelled)
    per_class = (len(labelled) or len(classifier.trained_on.files)) / len(classifier.classnames)
    drawn = min(number, len(pool.positions)) // RANDOM if at_random else 0
    uncertainty = numpy.array(pool.uncertainty)
    multi_label = is_multi_label(classifier.record)
    features = numpy.array(pool.features)
    order = next_to_label(features, uncertainty, known, per_class, number - drawn, multi_label)
    others = most_uncertain(uncertainty)
    odd = numpy.flatnonzero(numpy.array(pool.unfamiliar) <= UNFAMILIAR)
    odd = odd[numpy.argsort(numpy.array(pool.unfamiliar)[odd], kind="stable")]
    first = odd[: number // MIXED].tolist()
    candidates = [*dict.fromkeys([*first, *order.tolist(), *others.tolist()])][: LOOKED_AT * number]
    chosen = once_each(candidates, pool.paths)[: number - drawn]
    asked = [(place, 1.0) for place in chosen]
    rest = numpy.setdiff1d(numpy.arange(len(pool.positions)), chosen)
    drawn = min(drawn, len(rest))
    for turn, place in enumerate(numpy.random.default_rng(0).choice(rest, drawn, replace=False)):
        asked.insert((turn + 1) * RANDOM - 1, (int(place), drawn / len(rest)))
    way = way_said(per_class, multi_label)
    sentence = f"To label next: {counted(len(asked), 'image')} of {len(pool.positions)} without labels, {way}"
    if drawn:
        sentence += f"; {drawn} of them drawn at random"
    return rows_of(part, pool.positions, asked, at_random), sentence


def way_said(per_class: float, multi_label: bool) -> str:
    """Return how images are chosen and why, in words; per_class, multi_label: as in ``next_to_label``."""
    if multi_label:
        return "different ones, as always with several labels per image"
    way = "different ones" if is_spread(per_class, multi_label) else "the most uncertain"
    return f"{way}, since {per_class:.0f} images per class are labelled"


def known_features(folder: str, labelled: set[str]) -> numpy.ndarray:
    """Return the features (M, E), of length one, of a run's labelled pictures; none where it keeps none."""
    every = images_in(folder)
    known = [every[content].features.numpy() for content in sorted(every.keys() & labelled)]
    if not known:
        return numpy.zeros((0, 0), numpy.float32)
    return unit(numpy.array(known))


def once_each(places: Sequence[int], paths: Sequence[str]) -> list[int]:
    """Return the places of images, of near-duplicates the first; paths: of all images."""
    looks = look_through([paths[place] for place in places])
    groups = groups_of([""] * len(looks), looks, numpy.zeros(len(looks), int)).tolist()
    first: dict[int, int] = {}
    for place, group in zip(places, groups):
        first.setdefault(group, place)
    return [*first.values()]


def rows_of(
    part: PartFile, positions: Sequence[int], asked: Sequence[tuple[int, float]], at_random: bool
) -> Iterator[Mapping[str, object]]:
    """Yield the rows of images; asked: the place of each among the positions, and the probability with which
    it was asked for."""
    rows = part.rows_at(positions[place] for place, _ in asked)
    for row, (_, probability) in zip(rows, asked):
        del row[FEATURES_FIELD], row[CONTENT]
        yield {**row, ASKED_WITH: probability} if at_random else row

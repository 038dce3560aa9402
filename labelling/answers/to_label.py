"""Choice of the images to label next: images without a label in the run, one of near-duplicates."""

import base64
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.image_files import content_hash, look_through
from trainers.common.record_file import UNFAMILIAR, is_multi_label
from trainers.common.trained_on import TrainedOn, thumbnails

from ..encode import images_in
from ..evaluate import groups_of
from ..familiar import unit
from ..next_labels import is_spread, most_uncertain, next_to_label
from ..readers.csv_table import ASKED_WITH
from ..rounds import read_pictures
from ..seen import facts_in
from .part_file import PartFile

if TYPE_CHECKING:
    from ..classifier import PromptedClassifier

FEATURES_FIELD = "features"  # fields of a row, until it is written
CONTENT = "content"
STORED = "<f2"  # as which a feature's numbers are kept
LOOKED_AT = 3  # times as many candidates are looked at for near-duplicates as are asked for
RANDOM = 10  # one in so many is drawn at random
ALL_LABELLED = "the run has labels of all these images: give others"
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


class KnownImages(NamedTuple):
    """The labelled images of a run.

    Attributes:
        contents: hashes of the bytes of their files, where the run's folder has them.
        known: enough of them, and of the training images, to know them again.
        number: of images.
    """

    contents: frozenset[str]
    known: TrainedOn
    number: int


def labelled_images(folder: str, trained_on: TrainedOn) -> KnownImages:
    """Return the labelled images of the run in a folder, held-out ones included; trained_on: of its classifier."""
    contents = frozenset(picture.content for picture in read_pictures(folder).values())
    _, facts = facts_in(folder)
    own = [one for one in facts if one.digest.hex() in contents]
    known = TrainedOn(trained_on.files, numpy.concatenate([trained_on.thumbnails, thumbnails(own)]))
    return KnownImages(contents, known, len(contents) or len(trained_on.files))


class Pool(NamedTuple):
    """Images without labels: their positions in the part file, paths, and the model's answers to them."""

    positions: list[int]
    paths: list[str]
    uncertainty: list[float]
    unfamiliar: list[float]  # p-values
    features: list[numpy.ndarray]  # (E,) each, of length one


def unlabelled_pool(part: PartFile, labelled: KnownImages) -> Pool:
    """Return the answered images whose files a run has no labels of.

    Raises:
        UserError: the run has labels of all images.
    """
    pool = Pool([], [], [], [], [])
    for position, path, row in part.answered():
        content = str(row[CONTENT])
        if content in labelled.contents or labelled.known.has([bytes.fromhex(content)])[0]:
            continue
        pool.positions.append(position)
        pool.paths.append(path)
        pool.uncertainty.append(float(str(row["uncertainty"])))
        pool.unfamiliar.append(float(str(row.get("unfamiliar", 1))))
        pool.features.append(features_of(row))
    if not pool.positions:
        raise UserError(ALL_LABELLED)
    return pool


def to_label(
    part: PartFile, classifier: "PromptedClassifier", folder: str, number: int, at_random: bool
) -> tuple[Iterator[Mapping[str, object]], str]:
    """Return the rows of the images to label next, and how they were chosen, in sentences.

    Args:
        folder: of the run; number: of images.
        at_random: whether a tenth is drawn at random of all that were not chosen. Then each row says
            with which probability its image was asked for.

    Raises:
        UserError: the run has labels of all images.
    """
    labelled = labelled_images(folder, classifier.trained_on)
    pool = unlabelled_pool(part, labelled)
    drawn = min(number, len(pool.positions)) // RANDOM if at_random else 0
    per_class = labelled.number / len(classifier.classnames)
    multi_label = is_multi_label(classifier.record)
    order = order_of(
        pool, known_features(folder, labelled.contents), per_class, number, multi_label
    )
    chosen, again = once_each(order[: LOOKED_AT * number], pool.paths, labelled.known)
    chosen = chosen[: number - drawn]
    asked = [(place, 1.0) for place in chosen]
    rest = numpy.setdiff1d(numpy.arange(len(pool.positions)), [*chosen, *again])
    found, others, probability = draw(rest, drawn, pool.paths, labelled.known)
    again += others
    for turn, place in enumerate(found, 1):
        asked.insert(turn * RANDOM - 1, (place, probability))
    if not asked:
        raise UserError(ALL_LABELLED)
    left = len(pool.positions) - len(again)
    way = way_said(per_class, multi_label)
    sentence = f"To label next: {counted(len(asked), 'image')} of {left} without labels, {way}"
    if found:
        sentence += f"; {len(found)} of them drawn at random"
    if again:
        names = first_few([os.path.basename(pool.paths[place]) for place in again])
        sentence += f". Labelled images that were saved again are left out: {names}"
    return rows_of(part, pool.positions, asked, at_random), sentence


def order_of(
    pool: Pool, known: numpy.ndarray, per_class: float, number: int, multi_label: bool
) -> list[int]:
    """Return the places of a pool's images in the order to label them; arguments as in ``next_to_label``."""
    uncertainty = numpy.array(pool.uncertainty)
    features = numpy.array(pool.features)
    order = next_to_label(features, uncertainty, known, per_class, number, multi_label)
    unfamiliar = numpy.array(pool.unfamiliar)
    odd = numpy.flatnonzero(unfamiliar <= UNFAMILIAR)
    odd = odd[numpy.argsort(unfamiliar[odd], kind="stable")]
    first = odd[: number // MIXED].tolist()
    return [*dict.fromkeys([*first, *order.tolist(), *most_uncertain(uncertainty).tolist()])]


def way_said(per_class: float, multi_label: bool) -> str:
    """Return how images are chosen and why, in words; per_class, multi_label: as in ``next_to_label``."""
    if multi_label:
        return "different ones, as always with several labels per image"
    way = "different ones" if is_spread(per_class, multi_label) else "the most uncertain"
    return f"{way}, since {per_class:.0f} images per class are labelled"


def known_features(folder: str, labelled: Collection[str]) -> numpy.ndarray:
    """Return the features (M, E), of length one, of a run's labelled pictures, given by their contents; none
    where it keeps none."""
    every = images_in(folder)
    known = [every[content].features.numpy() for content in sorted(every.keys() & {*labelled})]
    if not known:
        return numpy.zeros((0, 0), numpy.float32)
    return unit(numpy.array(known))


def once_each(
    places: Sequence[int], paths: Sequence[str], known: TrainedOn
) -> tuple[list[int], list[int]]:
    """Return the places of images that are not labelled ones saved again, of near-duplicates the first, and the
    places of those that are.

    Args:
        paths: of all images; known: the labelled ones.
    """
    files = [paths[place] for place in places]
    looks = look_through(files)
    is_again = known.saved_again(thumbnails(looks))
    groups = groups_of(files, [""] * len(files), looks, numpy.zeros(len(files), int)).tolist()
    first: dict[int, int] = {}
    again = []
    for place, group, is_known in zip(places, groups, is_again):
        if is_known:
            again.append(place)
        else:
            first.setdefault(group, place)
    return [*first.values()], again


def draw(
    rest: numpy.ndarray, number: int, paths: Sequence[str], known: TrainedOn
) -> tuple[list[int], list[int], float]:
    """Draw a number of images at random, one after the other, until so many are not labelled ones saved again.

    Args:
        rest: places (R,) that are drawn from; paths: of all images; known: the labelled ones.

    Returns:
        the places of the drawn images; of those that were left out; the probability of each to be drawn.
    """
    order = numpy.random.default_rng(0).permutation(rest).tolist()
    found: list[int] = []
    again: list[int] = []
    while len(found) < number and len(found) + len(again) < len(order):
        start = len(found) + len(again)
        some = order[start : start + number - len(found)]
        is_again = known.saved_again(thumbnails(look_through([paths[place] for place in some])))
        found += [place for place, is_known in zip(some, is_again) if not is_known]
        again += [place for place, is_known in zip(some, is_again) if is_known]
    return found, again, (len(found) + len(again)) / max(1, len(order))


def rows_of(
    part: PartFile, positions: Sequence[int], asked: Sequence[tuple[int, float]], at_random: bool
) -> Iterator[Mapping[str, object]]:
    """Yield the rows of images; asked: the place of each among the positions, and the probability with which
    it was asked for."""
    rows = part.rows_at(positions[place] for place, _ in asked)
    for row, (_, probability) in zip(rows, asked):
        del row[FEATURES_FIELD], row[CONTENT]
        yield {**row, ASKED_WITH: probability} if at_random else row

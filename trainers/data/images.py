"""The images that a run trains, validates and tests on, and facts about them."""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy

from ..common.fingerprints import Named, image_name, split_hash, start_of
from ..common.trained_on import LENGTH, UNKNOWN_PICTURES, TrainedOn, note_on_trained
from .kept import PictureCache

Item = Named  # an image of a data set: Dassl's ``Datum``, or ``lists.Image``


@dataclass(frozen=True)
class Images:
    """The images of a run. Public data sets leave most fields after the first four empty.

    Attributes:
        train_x, val, test: the images of each part, under Dassl's names; val may be empty.
        classnames: the K names, in the order of the labels.
        whole_val: all validation images of the run's classes; ``val`` may be a sample of them.
        fewshot_sample: ``hash`` and ``origin`` of the few-shot sample; None where all images are taken.
        content: hash of the bytes of the images, where they may be replaced from one run to the next;
            else "".
        digests: path → hash of the file's bytes; empty where these are not known.
        thumbnails: path → small picture (``trained_on.thumbnail``); empty where these are not known.
        broken: part → names of the images that were left out, since they can't be read.
        notes: remarks for a reader of the run's numbers.
        is_test_only: whether ``train_x`` repeats the test images, for the class names alone.
        folds: number of folds whose training images are each answered by a fit
            without their fold; 0: none.
        groups: path → the number of the group of images that are not independent of one another; empty
            where nothing is known of groups.
        found_in_part: pairs of names of images that show that groups are found only in part, at most three; empty
            where nothing shows it.
        is_chosen: whether the images were shown to be more, or less, certain than others that were not labelled.
        kept: the decoded pictures of a first look at them; None without one.
        truth: path → (K,) bool, which labels the image has; empty where each has the one of its item.
    """

    train_x: Sequence[Item]
    val: Sequence[Item]
    test: Sequence[Item]
    classnames: Sequence[str]
    whole_val: Sequence[Item] = ()
    fewshot_sample: Mapping[str, str] | None = None
    content: str = ""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    thumbnails: Mapping[str, numpy.ndarray] = field(default_factory=dict)
    broken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    is_test_only: bool = False
    folds: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    found_in_part: Sequence[tuple[str, str]] = ()
    is_chosen: bool = False
    kept: PictureCache | None = None
    truth: Mapping[str, numpy.ndarray] = field(default_factory=dict)

    @cached_property
    def split_hash(self) -> str:
        """Their fingerprint, by ``fingerprints.split_hash``."""
        return split_hash(self.train_x, self.val, self.test, self.content)

    @cached_property
    def trained_on(self) -> TrainedOn:
        """Fingerprints of the training images, by which they are recognised; empty where digests are
        unknown."""
        if not self.digests:
            return UNKNOWN_PICTURES
        files = {start_of(self.digests[path]) for path in paths_of(self.train_x)}
        return TrainedOn(frozenset(files), self.small(self.train_x))

    def note_on_trained(self, items: Sequence[Item], trained: TrainedOn) -> str:
        """Return the remark that some of the images were trained on, "" for none or where digests are unknown."""
        if not self.digests:
            return ""
        paths = paths_of(items)
        digests = [self.digests[path] for path in paths]
        names = [image_name(path) for path in paths]
        return note_on_trained(trained, digests, self.small(items), names)[1]

    def small(self, items: Sequence[Item]) -> numpy.ndarray:
        """Return the thumbnails of images (N, ``trained_on.LENGTH``)."""
        own = [self.thumbnails[path] for path in paths_of(items)]
        return numpy.array(own, numpy.uint8).reshape(-1, LENGTH)

    def groups_of(self, paths: Sequence[str]) -> numpy.ndarray:
        """Return the number (N,) of the group of each image."""
        return numpy.array([self.groups[path] for path in paths])

    def truth_of(self, paths: Sequence[str]) -> numpy.ndarray:
        """Return which labels (N, K), bool, images have, of those with any number of labels."""
        return numpy.array([self.truth[path] for path in paths])

    @property
    def validates_on_test_images(self) -> bool:
        """Whether images of val are among the test's, as where a data set has no val of its own."""
        tested = {item.impath for item in self.test}
        return any(item.impath in tested for item in self.val)

    @property
    def is_tested_in_folds(self) -> bool:
        """Whether the test images are the training images, which folds answer."""
        trained = {item.impath for item in self.train_x}
        return bool(self.folds) and all(item.impath in trained for item in self.test)

    def seen_groups(self, out_of_fold: bool) -> set[int]:
        """Return the groups with another image that the classifier may have seen: all trained ones or, out
        of fold, the only groups of their classes, which are divided.

        out_of_fold: whether the classifier was fitted without the image's fold.
        """
        if self.truth and out_of_fold:  # no label is divided
            return set()
        by_class: dict[int, set[int]] = defaultdict(set)
        for item in self.train_x:
            by_class[item.label].add(self.groups[str(item.impath)])
        seen = [own for own in by_class.values() if not out_of_fold or len(own) == 1]
        return set().union(*seen)


def paths_of(items: Sequence[Item]) -> list[str]:
    """Return the paths of images."""
    return [str(item.impath) for item in items]


def one_of_each(groups: Sequence[Hashable]) -> numpy.ndarray:
    """Return a mask (N,) of one image of each group."""
    places = list(range(len(groups)))
    # the first by its name may be the one that the others are copies of
    random.Random("which of a group").shuffle(places)
    found = set()
    is_one = numpy.zeros(len(groups), bool)
    for place in places:
        is_one[place] = groups[place] not in found
        found.add(groups[place])
    return is_one


class PlainDataset(Protocol):
    """The attributes of every data set of Dassl's."""

    @property
    def train_x(self) -> Sequence[Item]: ...

    @property
    def val(self) -> Sequence[Item] | None: ...

    @property
    def test(self) -> Sequence[Item]: ...

    @property
    def classnames(self) -> Sequence[str]: ...


@runtime_checkable
class KnownDataset(Protocol):
    """A data set with further facts of its images, which all data sets of this toolbox have."""

    @property
    def images(self) -> Images: ...


def images_of(dataset: PlainDataset) -> Images:
    """Return a data set's images, with all facts of its own, or Dassl's attributes of another toolbox's."""
    if isinstance(dataset, KnownDataset):
        return dataset.images
    val = dataset.val or ()
    return Images(dataset.train_x, val, dataset.test, dataset.classnames, whole_val=val)

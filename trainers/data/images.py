"""What is known of the images that a run trains, validates and tests on."""

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy

from ..common.fingerprints import Named, split_hash

Item = Named  # an image of a data set: Dassl's ``Datum``, or ``lists.Image``


@dataclass(frozen=True)
class Images:
    """The images of a run. Of the field's data sets most of what follows the first four is not known.

    Attributes:
        train_x, val, test: the images of each part, under Dassl's names; val may be empty.
        classnames: the K names, in the order of the labels.
        whole_val: all validation images of the run's classes, of which ``val`` may be a sample.
        fewshot_sample: ``hash`` and ``origin`` of the few-shot sample; None where all images are taken.
        content: hash of the bytes of the images, where they may be replaced from one run to the next;
            else "".
        broken: part → names of the images that were left out, since they can't be read.
        notes: what a reader of the run's numbers has to know.
        is_test_only: whether ``train_x`` repeats the test images, for the class names alone.
        folds: in how many folds the images, all of which are trained and tested on, answer each other;
            0 where test images are held out.
        groups: path → the number of the group of images that are not independent of one another; empty
            where nothing is known of groups.
        seen_groups: groups of which an answer may have seen another image.
    """

    train_x: Sequence[Item]
    val: Sequence[Item]
    test: Sequence[Item]
    classnames: Sequence[str]
    whole_val: Sequence[Item] = ()
    fewshot_sample: Mapping[str, str] | None = None
    content: str = ""
    broken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    is_test_only: bool = False
    folds: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    seen_groups: frozenset[int] = frozenset()

    @cached_property
    def split_hash(self) -> str:
        """Their fingerprint, see ``fingerprints.split_hash``."""
        return split_hash(self.train_x, self.val, self.test, self.content)

    @property
    def validates_on_test_images(self) -> bool:
        """Whether images of val are among the test's, as where a data set has no val of its own."""
        tested = {item.impath for item in self.test}
        return any(item.impath in tested for item in self.val)

    def are_independent(self, paths: Sequence[str]) -> numpy.ndarray:
        """Which of the images (N,) count where a promise is made: those of groups that no answer has
        seen and, of several images of a group, one, whichever. All count where nothing is known of
        groups."""
        if not self.groups:
            return numpy.ones(len(paths), bool)
        return are_new([self.groups[path] for path in paths], self.seen_groups)


def are_new(groups: Sequence[Hashable], known: Iterable[Hashable]) -> numpy.ndarray:
    """Which images (N,) of these groups are new to what has seen the known groups: none of those and,
    of several images of a group, one, whichever."""
    places = list(range(len(groups)))
    # the first by its name may be the one that the others are copies of
    random.Random("which of a group").shuffle(places)
    found = set(known)
    new = numpy.zeros(len(groups), bool)
    for place in places:
        new[place] = groups[place] not in found
        found.add(groups[place])
    return new


class PlainDataset(Protocol):
    """What every data set of Dassl's has."""

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
    """A data set that says more of its images, as all of this toolbox do."""

    @property
    def images(self) -> Images: ...


def images_of(dataset: PlainDataset) -> Images:
    """What is known of a data set's images: what it says itself, of another toolbox's what Dassl has."""
    if isinstance(dataset, KnownDataset):
        return dataset.images
    val = dataset.val or ()
    return Images(dataset.train_x, val, dataset.test, dataset.classnames, whole_val=val)

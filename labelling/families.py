"""Families of file names, as programs give them to the copies of a picture and cameras to the shots of a burst, and
whether the pictures confirm that a family belongs together."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
import torch

from trainers.common.boxes import file_of
from trainers.common.console import counted
from trainers.common.image_files import PictureFacts

from .look_alikes import LookAlikes, connected, look_alikes

# Each matches the whole name of a copy without its ending; its group is the name of what it is a copy of. A name that
# it does not match may be the original's.
RULES = (
    r"(.+)\.rf\.[0-9a-zA-Z]{8,}",  # Roboflow's
    r"(?:aug(?:mented)?)[_-](.+)",
    r"(.+?)(?: \(\d+\)| - Copy.*|[_ -]copy\d*)",  # a file manager's
    r"(.+?)[_-](?:flip|mirror|rot|crop|zoom|shift|blur|noise|bright|dark|aug)\w*",
    r"(.+_\d+)_\d+",  # of Keras: the picture's number and one drawn at random
    r"(.+)[_-]\d+",  # a burst's
)
PAIRS = 20  # of pictures of a family each, which are looked at
CONFIRMED = 0.25  # where this share of them looks alike, all of a rule's families belong together
LEAST = 2  # pairs that have to look alike
Family = list[int]  # places of its pictures


class Families(NamedTuple):
    """Families that pictures confirm.

    Attributes:
        members: places of each family's pictures; note: for a reader, "" for none.
    """

    members: list[Family]
    note: str


class Evidence(NamedTuple):
    """Which of N pictures belong together, and by what evidence.

    Attributes:
        groups: the number of each picture's group, the place of its first picture.
        looked: the pictures that look alike; families: of names that these confirm.
    """

    groups: list[int]
    looked: LookAlikes
    families: Families


def grouped(
    paths: Sequence[str], looks: Sequence[PictureFacts | None], labels: Sequence[int]
) -> Evidence:
    """Group pictures of a class that look alike, and families of file names that these confirm.

    Args:
        paths: N; looks, labels: as in ``look_alikes``.
    """
    looked = look_alikes(looks, labels)
    families = confirmed(paths, labels, looked.groups)
    return Evidence(joined(looked.groups, families.members), looked, families)


def confirmed(paths: Sequence[str], labels: Sequence[int], groups: Sequence[int]) -> Families:
    """Return the families of file names whose pictures look alike more often than chance.

    Of each rule one pair of up to ``PAIRS`` families is looked at. Pictures of two families hardly ever look
    alike, so that a quarter of the pairs is evidence; the search misses many copies of several changes.

    Args:
        paths: N; labels: (N,), families are of one label; groups: (N,), of the pictures that look alike.
    """
    members: list[Family] = []
    left = [*range(len(paths))]
    for rule in RULES:
        families = [*families_of(rule, paths, labels, left)]
        pairs = sampled(families)
        alike = sum(groups[one] == groups[other] for one, other in pairs)
        if alike >= max(LEAST, CONFIRMED * len(pairs)):
            members += families
            taken = {place for family in families for place in family}
            left = [place for place in left if place not in taken]
    return Families(members, note_on_families(members, paths))


def families_of(
    rule: str, paths: Sequence[str], labels: Sequence[int], places: Sequence[int]
) -> Iterator[Family]:
    """Yield the families of a rule among some pictures, which lie in one folder and are of one label: of two
    pictures at least, and at most half of the label's."""
    found: dict[tuple[str, int, str], Family] = defaultdict(list)
    for place in places:
        folder, name = os.path.split(file_of(paths[place]))
        name, _ = os.path.splitext(name)
        match = re.fullmatch(rule, name, re.IGNORECASE)
        found[folder, labels[place], match[1] if match else name].append(place)
    sizes = Counter(labels)
    for (_, label, _), family in found.items():
        if 2 <= len(family) <= sizes[label] / 2:
            yield family


def sampled(families: Sequence[Family]) -> list[tuple[int, int]]:
    """Return the first and the last picture of up to ``PAIRS`` families, drawn with a fixed seed."""
    drawn = numpy.random.default_rng(0).permutation(len(families))[:PAIRS]
    return [(families[index][0], families[index][-1]) for index in drawn]


def joined(groups: Sequence[int], families: Sequence[Family]) -> list[int]:
    """Return the groups (N,) of pictures, each the place of its first picture, where those of a family or of one of
    ``groups`` (N,) belong together."""
    if not families:
        return [*groups]
    pairs = [*enumerate(groups)]
    for family in families:
        pairs += [(family[0], place) for place in family]
    component = connected(torch.tensor(pairs), len(groups)).tolist()
    first: dict[int, int] = {}
    return [first.setdefault(number, place) for place, number in enumerate(component)]


def note_on_families(families: Sequence[Family], paths: Sequence[str]) -> str:
    """Return what a reader has to know of families that belong together; "" for none."""
    if not families:
        return ""
    first = sorted(os.path.basename(paths[place]) for place in families[0])
    images = counted(sum(map(len, families)), "image")
    return (
        f"By their names {images} are of {counted(len(families), 'group')}, such as {first[0]} and {first[1]}, and pictures "
        "of these look alike: each group stays together (--group-by none: no picture belongs to another)"
    )

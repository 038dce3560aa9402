"""Families of file names: pictures that look alike confirm them, and nothing else does."""

import re

import numpy
import pytest
from PIL import Image

from labelling.evaluate import groups_of, looks_at
from labelling.families import confirmed, joined
from tests.labelling.tables import CFG, images_in

HASH = "0123456789abcdef"
# two names of each family, by the number of the picture
NAMES = {
    "Roboflow": ("s{}_jpg.rf.0" + HASH, "s{}_jpg.rf.1" + HASH),
    "a prefix": ("s{}", "aug_s{}"),
    "a file manager": ("s{}", "s{} (1)"),
    "its copies": ("s{}", "s{} - Copy"),
    "flips": ("s{}", "s{}_flip"),
    "turns": ("s{}_rot90", "s{}_rot180"),
    "Keras": ("aug_{}_1234", "aug_{}_5678"),
    "a burst": ("IMG{}_1", "IMG{}_2"),
    "frames": ("clip{}_frame_000001", "clip{}_frame_000900"),
}
# names that are of no family: numbers in a row, and digits' numbers
ALONE = ("IMG_{:04d}", "{:05d}", "cat-{}", "photo ({})")


def named(kind, number=40):
    return [
        f"/data/cat/{name.format(place)}.png" for place in range(number) for name in NAMES[kind]
    ]


@pytest.mark.parametrize("kind", NAMES)
def test_families_of_names_that_some_pictures_confirm_belong_together(kind):
    """A quarter of the pairs looks alike; without these, nothing is said of the names."""
    paths = named(kind)
    pairs = [[place, place + 1] for place in range(0, 80, 2)]
    looked = [*range(80)]
    for one, other in pairs[::4]:
        looked[other] = one
    found = confirmed(paths, [0] * 80, looked)
    assert found.members == pairs
    assert "80 images are of 40 groups" in found.note
    assert joined(looked, found.members) == [place // 2 * 2 for place in range(80)]
    assert confirmed(paths, [0] * 80, [*range(80)]) == ([], "")


@pytest.mark.parametrize("name", ALONE)
def test_names_that_number_a_class_are_of_no_family(name):
    """Not even where all pictures look alike."""
    paths = [f"/data/cat/{name.format(place)}.png" for place in range(400)]
    assert confirmed(paths, [0] * 400, [0] * 400).members == []


def test_families_are_of_one_class_and_one_folder():
    paths = [f"/data/{place % 2}/s{place // 2}_{place}.png" for place in range(8)]
    alike = [place // 2 for place in range(8)]
    assert confirmed(paths, [0] * 8, alike).members == []
    paths = [f"/data/s{place // 2}_{place}.png" for place in range(8)]
    assert confirmed(paths, [place % 2 for place in range(8)], alike).members == []


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_copies_that_are_not_found_stay_together_by_their_names_if_others_are_found(
    tmp_path, multi_label
):
    """Of 24 pictures with a copy each, half of the copies are other pictures to the search."""
    draws = numpy.random.default_rng(0)
    rows = []
    for number in range(24):
        cells = draws.integers(40, 256, (12, 12, 3), dtype="uint8")
        copy = cells if number % 2 else draws.integers(40, 256, (12, 12, 3), dtype="uint8")
        for suffix, pixels in (("", cells), ("_flip", copy[:, ::-1])):
            picture = Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1))
            picture.save(tmp_path / f"s{number:02d}{suffix}.png")
            rows.append(f"s{number:02d}{suffix}.png,{'one' if number < 12 else 'two'}")
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["image,label", *rows]))
    made = images_in(file, CFG, True, multi_label)
    assert len({*made.groups.values()}) == 24
    said = r"48 images are of 24 groups, such as (s\d\d).png and \1_flip.png"
    assert re.search(said, " ".join(made.notes))
    assert not made.found_in_part
    # an evaluation's unit is the same group; a picture in memory and one that has a name for its group are of no family
    pictures = [item.impath for item in made.test]
    expected = [made.groups[path] for path in pictures]
    classes = [0 if multi_label else item.label for item in made.test]
    pictures.append(numpy.zeros((8, 8, 3), "uint8"))
    names = ["mine", *[""] * 48]
    groups = groups_of(pictures, names, looks_at(pictures), numpy.array([*classes, 0]))
    expected[0] = -1
    together = numpy.equal.outer([*expected, -2], [*expected, -2])
    assert (numpy.equal.outer(groups, groups) == together).all()

"""Pictures that look alike: what is found, what is not, and that nothing divides them."""

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from labelling.look_alikes import look_alikes, share_partial
from labelling.parts import folds
from tests import bursts, copies, plain
from tests.conftest import slow_but_for
from trainers.common.image_files import COARSE, PictureFacts, thumbnails_of
from trainers.data.class_folders import PART_SHARES, divide
from trainers.data.images import one_of_each

SOME = ("country flag", "mammal")
GROUPS = st.lists(st.integers(0, 12), min_size=4, max_size=60)


def seen(pixels):
    """The facts of a picture's pixels (``COARSE``, ``COARSE``, 3), which may be flat."""
    picture = Image.fromarray(pixels.reshape(COARSE, COARSE, 3))
    return PictureFacts("", False, b"", *thumbnails_of(picture))


def test_shots_of_a_burst_are_found_and_different_pictures_are_not():
    """Of drawings, and of textures, which nothing distinguishes from afar."""
    drawings = bursts.drawn(bursts.codes()[::60])
    assert bursts.found(drawings, strength=0.5) > 90
    assert bursts.found(drawings, strength=1) > 75
    textures = bursts.textures(classes=2, each=25)
    group = bursts.groups(*zip(*textures))
    assert group == list(range(len(textures)))


# pairs of a scene that are in one group, in percent: at least; docs/data/copies_found.csv has all
FOUND = {
    "zoomed": 70,
    "augmented": 60,
    "mirrored": 99,
    "turned by 90°": 99,
    "turned by 15°": 85,
    "cut out": 70,
}


@slow_but_for(("zoomed", "turned by 90°", "cut out"), FOUND, "kind")
def test_copies_of_a_drawing_are_one_group_and_no_two_drawings_are(kind):
    draws = numpy.random.default_rng(0)
    scenes = bursts.drawn(bursts.codes()[::60])
    shown = [
        each
        for picture, name in scenes
        for each in ((picture, name), (copies.copy(kind, picture, draws), name))
    ]
    group = numpy.array(bursts.groups(*zip(*shown))).reshape(-1, 2)
    assert 100 * (group[:, 0] == group[:, 1]).mean() >= FOUND[kind]
    alone = bursts.groups(*zip(*scenes))
    scene = numpy.repeat(alone, 2).reshape(-1, 2)
    assert len({*zip(group.ravel(), scene.ravel())}) == len({*group.ravel()}), "no scene is joined"


# whether a folder of drawings with three copies of a kind each shows that copies are found in part
PARTIAL = {
    "half a burst": False,
    "a burst": False,  # some of its shots look nearly alike
    "mirrored": False,
    "turned by 90°": False,
    "turned by 15°": True,
    "edited": True,
    "zoomed": True,
    "cut out": True,
    "panned": True,
    "augmented": True,
}


@pytest.fixture(scope="module")
def scenes():
    """Drawings, some of them twins."""
    return bursts.drawn(code for code in bursts.codes() if code[1] in SOME)


@slow_but_for(("a burst", "turned by 90°", "edited", "panned"), PARTIAL, "kind")
def test_that_copies_are_found_in_part_is_seen_by_those_that_are_found(scenes, kind):
    draws = numpy.random.default_rng(0)
    shown = [
        (each, name)
        for picture, name in scenes
        for each in (picture, *(copies.copy(kind, picture, draws) for _ in range(3)))
    ]
    found = bursts.alike(*zip(*shown))
    assert (share_partial(sum(found.is_partial), len(shown)) > 0) == PARTIAL[kind]


def test_twins_among_drawings_are_no_copies_that_are_found_in_part(scenes):
    assert share_partial(sum(bursts.alike(*zip(*scenes)).is_partial), len(scenes)) == 0


@pytest.mark.parametrize("kind", plain.FOLDERS)
def test_plain_drawings_are_as_like_as_copies_and_are_none(kind):
    drawings = plain.FOLDERS[kind](numpy.random.default_rng(0))
    found = bursts.alike(*zip(*drawings))
    assert len({*found.groups}) >= 0.98 * len(drawings)
    assert not any(found.is_partial)


@pytest.mark.parametrize("kind", plain.FOLDERS)
def test_a_plain_drawing_that_is_saved_again_mirrored_or_turned_is_one(kind):
    draws = numpy.random.default_rng(0)
    made = []
    for number, (picture, name) in enumerate(plain.FOLDERS[kind](draws)):
        changed = ("saved", "mirrored", "turned by 90°")[number % 3]
        made += [(picture, name), (copies.copy(changed, picture, draws), name)]
    found = bursts.alike(*zip(*made))
    group = numpy.array(found.groups).reshape(-1, 2)
    assert (group[:, 0] == group[:, 1]).mean() >= 0.85
    assert not any(found.is_partial)


def test_a_faint_picture_with_a_black_box_is_not_plain():
    """The box is darker than all else, but the picture is registered by what it shows beside the box."""
    place = numpy.arange(COARSE)
    wave = 128 + 4 * numpy.sin(place[:, None] / 2) * numpy.sin(place / 3)
    picture = wave[..., None].repeat(3, axis=2).astype("uint8")
    boxed = picture.copy()
    boxed[4:10, 9:15] = 0
    assert look_alikes([seen(picture), seen(boxed)], [0, 0]).groups == [0, 0]


def test_a_picture_is_partial_where_it_looks_like_some_of_its_group_and_unlike_the_rest():
    """Three windows, each of which is moved by as much as is found: the outer ones don't look alike. So
    many copies of one picture that none is held against all others are whole."""
    wide = numpy.random.default_rng(0).integers(40, 256, (COARSE, 2 * COARSE, 3)).astype(float)
    wide = gaussian_filter(wide, (2, 2, 0), mode="wrap")
    wide = 128 + 4 * (wide - wide.mean())
    windows = [wide[:, left : left + COARSE].clip(0, 255).astype("uint8") for left in (0, 5, 10)]
    found = look_alikes([seen(window) for window in windows], [0, 0, 0])
    assert found == ([0, 0, 0], [True, False, True])
    noise = numpy.random.default_rng(1).integers(-2, 3, (30, windows[0].size))
    many = [*map(seen, (windows[0].ravel() + noise).clip(0, 255).astype("uint8"))]
    assert look_alikes(many, [0] * 30) == ([0] * 30, [False] * 30)


def test_what_is_black_in_a_third_of_a_picture_is_no_cover():
    """Of light shapes on black the ground is compared, too: two shapes are two pictures."""
    ground = numpy.zeros((2, COARSE, COARSE, 3), "uint8")
    ground[0, 4:20, 4:10] = 200
    ground[1, 4:20, 4:20] = 200
    assert look_alikes([*map(seen, ground)], [0, 0]).groups == [0, 1]


def test_a_pictures_lines_are_no_covers():
    """Black and thinner than two coarse pixels: they are what a drawing shows."""
    plain = numpy.full((COARSE, COARSE, 3), 200, "uint8")
    plain[:, :12] = 120
    crossed = plain.copy()
    crossed[12, 3:21] = 0
    crossed[3:21, 6] = 0
    crossed[3:21, 17] = 0
    assert look_alikes([seen(plain), seen(crossed)], [0, 0]).groups == [0, 1]
    covered = plain.copy()
    covered[3:9, 3:9] = 0
    assert look_alikes([seen(plain), seen(covered)], [0, 0]).groups == [0, 0]


def test_copies_in_another_size_are_found_however_many_there_are_and_two_classes_share_no_group():
    generator = numpy.random.default_rng(0)
    cells = generator.integers(40, 256, (3, 4, 4, 3), dtype="uint8")
    scenes = cells.repeat(COARSE // 4, axis=1).repeat(COARSE // 4, axis=2).reshape(3, -1)
    scene, label = generator.integers(0, 3, 200), generator.integers(0, 2, 200)
    noise = generator.integers(-2, 3, (200, scenes.shape[1]))
    pictures = [*map(seen, (scenes[scene] + noise).clip(0, 255).astype("uint8"))]
    first = {}
    expected = [first.setdefault(key, place) for place, key in enumerate(zip(scene, label))]
    assert look_alikes([*pictures, None], [*label, 0]).groups == [*expected, 200], (
        "the unreadable one is alone"
    )


@given(GROUPS)
def test_no_group_is_divided_and_each_part_has_its_share(groups):
    """With groups enough; else, and where each picture is alone, the parts are those without groups."""
    paths = [f"{place}.png" for place in range(len(groups))]
    files = {"class": paths}
    alone = divide("", files)
    assert divide("", files, dict(zip(paths, range(len(paths))))) == alone
    parts = divide("", files, dict(zip(paths, groups)))
    if len({*groups}) < len(parts):
        assert parts == alone
        return
    part_of = {path: part for part, of in parts.items() for path in of["class"]}
    assert sorted(part_of) == sorted(paths)
    places = {*zip(groups, (part_of[path] for path in paths))}
    assert len(places) == len({*groups}), "a group is in one part"
    largest = max(map(groups.count, groups))
    for share, part in zip(PART_SHARES, parts.values()):
        assert part["class"], "no part is empty"
        assert abs(len(part["class"]) - share * len(groups)) <= largest + 1


@given(GROUPS, st.integers(2, 6), st.integers(0, 5))
def test_folds_divide_no_group_of_a_class_that_has_another(groups, number, seed):
    groups = torch.tensor(groups)
    labels = groups % 3
    fold = folds(labels, number, seed, groups)
    for label in labels.unique():
        own = groups[labels == label].unique()
        if len(own) > 1:
            assert all(len(fold[groups == group].unique()) == 1 for group in own)
            assert len(fold[labels == label].unique()) > 1, "others of its class answer each"
    alone = folds(labels, number, seed, torch.arange(len(groups)))
    assert alone.equal(folds(labels, number, seed))


@given(GROUPS)
def test_one_of_each_group_counts(groups):
    counted = [group for group, is_one in zip(groups, one_of_each(groups)) if is_one]
    assert sorted(counted) == sorted({*groups})


def test_which_of_a_group_counts_is_drawn_evenly_and_is_the_same_every_time():
    """The first by its name may be what the others are copies of."""
    groups = [place // 4 for place in range(4000)]
    ones = one_of_each(groups)
    for counted in ones.reshape(-1, 4).sum(axis=0):
        deviation = (1000 * 1 / 4 * 3 / 4) ** 0.5
        assert abs(counted - 250) < 4 * deviation
    assert (one_of_each(groups) == ones).all()


@pytest.mark.parametrize("channels", [(0, 1, 2), (2,)], ids=["light", "blue light"])
@pytest.mark.parametrize("more, are_alike", [(45, True), (55, False)])
def test_a_scene_in_a_light_that_differs_by_more_than_50_of_255_is_another(
    channels, more, are_alike
):
    """All else is the same, to the pixel."""
    scene = numpy.random.default_rng(0).integers(60, 140, (COARSE, COARSE, 3), dtype="uint8")
    lit = scene.copy()
    lit[..., channels] += more
    group = look_alikes([seen(scene), seen(lit)], [0, 0]).groups
    assert (group == [0, 0]) == are_alike

"""Pictures that look alike: what is found, what is not, and that nothing divides them."""

from collections import defaultdict

import bursts
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainers.common.image_files import COARSE
from trainers.data.class_folders import SHARES, divide
from trainers.data.look_alikes import are_new, groups_of
from trainers.learners import candidates

GROUPS = st.lists(st.integers(0, 12), min_size=4, max_size=60)


def test_shots_of_a_burst_are_found_and_different_pictures_are_not():
    """Of drawings, and of textures, which nothing distinguishes from afar."""
    drawings = bursts.drawings()[::40]
    assert bursts.found(drawings, strength=0.5) > 90
    assert bursts.found(drawings, strength=1) > 75
    textures = bursts.textures(classes=2, each=25)
    group = bursts.groups(*zip(*textures))
    assert group == list(range(len(textures)))


def test_copies_in_another_size_are_found_however_many_there_are_and_two_classes_share_no_group():
    generator = numpy.random.default_rng(0)
    scenes = generator.integers(0, 256, (3, 3 * COARSE**2), dtype="uint8")
    scenes = numpy.sort(scenes.reshape(3, COARSE, -1)).reshape(3, -1)  # from dark to light
    scene = generator.integers(0, 3, 200)
    label = generator.integers(0, 2, 200)
    noise = generator.integers(-2, 3, (200, scenes.shape[1]))
    seen = [*(scenes[scene] + noise).clip(0, 255).astype("uint8")]
    group = groups_of([*seen, None], [*label.tolist(), 0])
    assert group[-1] == 200, "what can't be read is alone"
    expected = {}
    for place, key in enumerate(zip(scene.tolist(), label.tolist())):
        assert group[place] == expected.setdefault(key, place)


def test_without_shapes_nothing_looks_alike_but_what_is_equal():
    grey = numpy.full(3 * COARSE**2, 128, dtype="uint8")
    noise = numpy.random.default_rng(0).integers(0, 256, (4, 3 * COARSE**2), dtype="uint8")
    light = grey + numpy.uint8(100)
    assert groups_of([grey, light, grey, *noise], [0] * 7) == [0, 1, 0, 3, 4, 5, 6]


@given(GROUPS, st.integers(0, 9))
def test_no_group_is_divided_and_each_part_and_fold_has_its_share(groups, seed):
    """With groups enough; the parts are about what they would be without groups, and exactly that where
    each picture is alone."""
    paths = [f"{place}.png" for place in range(len(groups))]
    files = {"class": paths}
    alone = divide("", files)
    assert divide("", files, dict(zip(paths, range(len(paths))))) == alone
    parts = divide("", files, dict(zip(paths, groups)))
    assert sorted(sum((part["class"] for part in parts.values()), [])) == sorted(paths)
    if len({*groups}) < len(parts):
        assert parts == alone
        return
    places = defaultdict(set)
    for part, of in parts.items():
        assert of["class"], "no part is empty"
        for path in of["class"]:
            places[groups[int(path.removesuffix(".png"))]].add(part)
    assert all(len(where) == 1 for where in places.values())
    largest = max(map(groups.count, groups))
    for share, part in zip(SHARES, parts.values()):
        assert abs(len(part["class"]) - share * len(groups)) <= largest + 1


@given(GROUPS, st.integers(2, 6), st.integers(0, 5))
def test_folds_divide_no_group_of_a_class_that_has_another(groups, number, seed):
    labels = torch.tensor([group % 3 for group in groups])
    fold = candidates.folds(labels, number, seed, torch.tensor(groups))
    for label in labels.unique():
        own = [group for group in groups if group % 3 == label]
        if len({*own}) > 1:
            for group in {*own}:
                assert len(fold[torch.tensor(groups) == group].unique()) == 1
            assert len(fold[labels == label].unique()) > 1, (
                "each is answered by others of its class"
            )
    alone = candidates.folds(labels, number, seed, torch.arange(len(groups)))
    assert alone.equal(candidates.folds(labels, number, seed))


@given(GROUPS, st.sets(st.integers(0, 12)))
def test_one_of_each_group_is_new_to_what_has_seen_none_of_it(groups, known):
    new = are_new(groups, known)
    counted = [group for group, is_new in zip(groups, new) if is_new]
    assert sorted(counted) == sorted({*groups} - known)


@pytest.mark.slow
def test_thousands_of_pictures_that_nearly_look_alike_take_bounded_memory():
    """Sixteen thousand of one class: their distances alone would take a gigabyte."""
    import tracemalloc

    generator = numpy.random.default_rng(0)
    seen = [*generator.integers(0, 256, (16_000, 3 * COARSE**2), dtype="uint8")]
    tracemalloc.start()
    assert len({*groups_of(seen, [0] * len(seen))}) == len(seen)
    assert tracemalloc.get_traced_memory()[1] < 2**29

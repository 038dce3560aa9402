"""Pictures that look alike: what is found, what is not, and that nothing divides them."""

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelling.cross_fit import folds
from labelling.folders.look_alikes import groups_of
from trainers.common.image_files import COARSE
from trainers.data.class_folders import SHARES, divide
from trainers.data.images import are_new

GROUPS = st.lists(st.integers(0, 12), min_size=4, max_size=60)


def test_copies_in_another_size_are_found_however_many_there_are_and_two_classes_share_no_group():
    generator = numpy.random.default_rng(0)
    scenes = generator.integers(0, 256, (3, 3 * COARSE**2), dtype="uint8")
    scenes = numpy.sort(scenes.reshape(3, COARSE, -1)).reshape(3, -1)  # from dark to light
    scene, label = generator.integers(0, 3, 200), generator.integers(0, 2, 200)
    noise = generator.integers(-2, 3, (200, scenes.shape[1]))
    seen = [*(scenes[scene] + noise).clip(0, 255).astype("uint8")]
    first = {}
    expected = [first.setdefault(key, place) for place, key in enumerate(zip(scene, label))]
    assert groups_of([*seen, None], [*label, 0]) == [*expected, 200], "the unreadable one is alone"


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
    for share, part in zip(SHARES, parts.values()):
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


@given(GROUPS, st.sets(st.integers(0, 12)))
def test_one_of_each_group_is_new_to_what_has_seen_none_of_it(groups, known):
    new = are_new(groups, known)
    counted = [group for group, is_new in zip(groups, new) if is_new]
    assert sorted(counted) == sorted({*groups} - known)

"""How familiar a picture is: conformal p-values against the definition's own loop, and how often they are
small for pictures that come as the training pictures came."""

import math
import statistics

import numpy
import pytest
import torch

from labelling import familiar
from labelling.appearance import looks_of
from labelling.familiar import FAMILIAR_FILE, NEAR, Familiar, fit_familiar, has_near, read_familiar
from trainers.common.files import file_hash, write_arrays
from trainers.common.record_file import UNFAMILIAR

WIDTH = 12
STATISTICS = 5


def drawn(draws, groups, shots=1):
    """Features, looks and groups of pictures that come in groups."""
    group = numpy.repeat(numpy.arange(groups), shots)
    features = 2 + draws.normal(size=(groups, WIDTH))[group]
    looks = draws.normal(size=(groups, STATISTICS))[group]
    shake = 0.05 * draws.normal(size=(len(group), WIDTH))
    return features + shake, looks + 0.05 * draws.normal(size=looks.shape), group


def by_loops(known: Familiar, features, looks):
    """The p-value of one picture, in float64, from the distances of the training pictures."""
    kept = known.features.astype(float)
    cosines = sorted(kept @ (features / numpy.linalg.norm(features)))
    away = looks - known.look.mean
    own = math.log(1 - sum(cosines[-3:]) / 3), math.log(away @ known.look.precision @ away)
    columns = known.distances.T
    middle = [statistics.fmean(column) for column in columns]
    spread = [statistics.pstdev(column) for column in columns]

    def farther(content, look):
        return max((content - middle[0]) / spread[0], (look - middle[1]) / spread[1])

    as_far = 0
    for distances, weight in zip(known.distances, known.weight):
        if farther(*distances) >= farther(*own):
            as_far += weight
    return (1 + as_far) / (known.weight.sum() + 1)


@pytest.mark.parametrize("shots", [1, 3])
def test_p_values_are_those_of_the_definitions_loop(shots):
    draws = numpy.random.default_rng(0)
    known = fit_familiar(*drawn(draws, 30, shots))
    features, looks, _ = drawn(draws, 20)
    expected = [by_loops(known, *picture) for picture in zip(features, looks)]
    numpy.testing.assert_allclose(known.p_values(features, looks), expected, rtol=1e-6)


def test_a_training_picture_is_judged_by_other_groups_alone():
    """Its distance is the one that it has from what is fitted without its group."""
    features, looks, groups = drawn(numpy.random.default_rng(0), 20, 2)
    known = fit_familiar(features, looks, groups)
    for place in range(len(groups)):
        others = groups != groups[place]
        kept = known.features[others].astype(float) @ known.features[place].astype(float)
        expected = 1 - numpy.sort(kept)[-3:].mean()
        assert known.distances[place, 0] == pytest.approx(math.log(expected), abs=1e-3)


@pytest.mark.parametrize("shots", [1, 4], ids=["alone", "in groups"])
def test_pictures_that_come_as_the_training_pictures_came_are_seldom_unfamiliar(shots):
    """Over draws at most 7 % of them, whatever is drawn from; a picture far away always is."""
    shares = []
    for seed in range(60):
        draws = numpy.random.default_rng(seed)
        known = fit_familiar(*drawn(draws, 60, shots))
        features, looks, _ = drawn(draws, 200)
        shares.append((known.p_values(features, looks) <= UNFAMILIAR).mean())
        odd = known.p_values(-features, looks), known.p_values(features, looks + 20)
        assert (numpy.concatenate(odd) <= UNFAMILIAR).all()
    assert 0.02 < numpy.mean(shares) <= 0.07


def test_a_training_pictures_own_p_value_is_its_rank_among_all():
    """Alone in its group: as a new picture's among the others."""
    known = fit_familiar(*drawn(numpy.random.default_rng(0), 40))
    score = known.score(known.distances).tolist()
    expected = [(1 + sum(other > own for other in score)) / 40 for own in score]
    numpy.testing.assert_allclose(known.own_p_values(), expected)


def test_copies_in_a_group_count_once():
    """Each picture of a group twice: the distances from other groups hardly move, and nothing counts twice."""
    draws = numpy.random.default_rng(0)
    features, looks, groups = drawn(draws, 40)
    asked, their_looks, _ = drawn(draws, 30)
    once = fit_familiar(features, looks, groups)
    twice = fit_familiar(*(numpy.concatenate([part, part]) for part in (features, looks, groups)))
    assert twice.groups == once.groups == 40
    least = 1 / (once.groups + 1)
    assert (twice.p_values(asked, their_looks) >= least).all()
    assert twice.p_values(-asked, their_looks) == pytest.approx(least)


def test_near_neighbours_are_of_other_groups_and_nearer_than_most(monkeypatch):
    """By a loop over all pairs; a copy in a picture's own group is none."""
    monkeypatch.setattr(familiar, "COSINES_PER_BLOCK", 7)
    features, _, group = drawn(numpy.random.default_rng(0), 30, 2)
    group[-2:] = 30, 31  # two copies that were not found
    unit = features / numpy.linalg.norm(features, axis=1, keepdims=True)
    square = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    limit = NEAR * math.sqrt(square.mean())
    expected = []
    for place, own in enumerate(square):
        expected.append(math.sqrt(own[group != group[place]].min()) <= limit)
    assert has_near(features, group).tolist() == expected
    assert expected[-2:] == [True, True] and sum(expected) < 10


def test_too_few_groups_find_nothing_unfamiliar():
    features, looks, groups = drawn(numpy.random.default_rng(0), 18)
    known = fit_familiar(features, looks, groups)
    assert (known.p_values(-features, looks + 50) > UNFAMILIAR).all()


def test_what_is_kept_is_small_and_gives_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(familiar, "MOST_REFERENCES", 50)
    monkeypatch.setattr(familiar, "COSINES_PER_BLOCK", 7)
    draws = numpy.random.default_rng(0)
    known = fit_familiar(*drawn(draws, 80))
    assert known.features.shape == (50, WIDTH)
    assert known.features.dtype == numpy.float16
    features, looks, _ = drawn(draws, 20)
    write_arrays(str(tmp_path / FAMILIAR_FILE), known.arrays())
    record = {"files": {FAMILIAR_FILE: file_hash(tmp_path / FAMILIAR_FILE)}}
    again = read_familiar(str(tmp_path), record)
    assert (again.p_values(features, looks) == known.p_values(features, looks)).all()
    monkeypatch.setattr(familiar, "COSINES_PER_BLOCK", 1000)
    numpy.testing.assert_allclose(again.p_values(features, looks), known.p_values(features, looks))


def test_one_group_alone_tells_nothing():
    features, looks, groups = drawn(numpy.random.default_rng(0), 1, 9)
    p_values = fit_familiar(features, looks, groups).p_values(-features, looks + 50)
    assert (p_values >= 0.5).all()


def test_looks_are_the_statistics_that_they_are_called():
    """Of pictures as small as they are measured: by numpy, in float64."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = looks_of(pixels)
    assert found.shape == (2, 16)
    for look, picture in zip(found, pixels.double().numpy()):
        saturation = picture.max(axis=0) - picture.min(axis=0)
        expected = [*picture.mean(axis=(1, 2)), *picture.std(axis=(1, 2), ddof=1)]
        expected += [saturation.mean(), saturation.std(ddof=1)]
        grey = picture.mean(axis=0)
        while len(grey) >= 8:
            steps = [*numpy.diff(grey, axis=0).ravel(), *numpy.diff(grey, axis=1).ravel()]
            for value in (numpy.abs(steps).mean(), numpy.sqrt(numpy.square(steps).mean())):
                expected.append(numpy.log(value + 1e-3))
            grey = grey.reshape(len(grey) // 2, 2, -1, 2).mean(axis=(1, 3))
        numpy.testing.assert_allclose(look, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 224])
def test_a_picture_of_one_colour_has_a_look(side):
    assert numpy.isfinite(looks_of(torch.zeros(1, 3, side, side))).all()

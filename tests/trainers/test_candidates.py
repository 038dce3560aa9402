"""Trainers that are fitted to image features in folds: answered by what has not seen the pictures, under
settings that little data do not toss about."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_method
from trainers.learners import candidates
from trainers.learners.candidates import CANDIDATES, Known
from trainers.learners.features import HeldOut, most_likely, peak

NAMES = ["cat", "dog", "owl"]
FITTED = CANDIDATES[1:]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_are_even_in_all_and_in_each_class(labels, number, seed):
    labels = torch.tensor(labels)
    fold = candidates.folds(labels, number, seed)
    for part in (fold, *(fold[labels == label] for label in labels.unique())):
        counts = torch.bincount(part, minlength=number)
        assert counts.max() - counts.min() <= 1


def method_of(trainer, backbone, names=NAMES):
    return make_method(trainer, backbone, names, CHOICE="likelihood").eval()


def clusters(pictures, spread, width, classes=3, seed=0):
    """Features around a direction per class, which texts know nothing of; on average their noise is
    ``spread`` times as long as what tells the classes apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(pictures) % classes
    centres = torch.randn(classes, width, generator=generator)
    noise = torch.randn(pictures, width, generator=generator)
    return F.normalize(centres[labels] + spread * noise, dim=-1), labels


def known(features, labels):
    return Known(features[None], features, labels)


def percent_right(answers, labels):
    return 100 * (answers.probability.argmax(dim=1) == labels).float().mean().item()


@pytest.mark.parametrize("trainer", FITTED)
def test_what_pictures_show_is_found_and_what_they_do_not_show_is_no_better_than_chance(
    vit, trainer
):
    """With labels that say nothing a picture that had been seen would still be right."""
    features, labels = clusters(60, 0.5, vit.embed_dim)
    answers = method_of(trainer, vit).cross_fit(known(features, labels), 1)
    assert percent_right(answers, labels) > 95
    assert answers.probability.sum(dim=1) == pytest.approx(1)
    said = labels[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    answers = method_of(trainer, vit).cross_fit(known(features, said), 1)
    assert percent_right(answers, said) < 60


@pytest.mark.parametrize("trainer", FITTED)
def test_each_picture_is_answered_by_what_has_not_seen_it_and_what_is_kept_has_seen_all(
    vit, trainer, monkeypatch
):
    features, labels = clusters(45, 1.0, vit.embed_dim)
    method = method_of(trainer, vit)
    filled, answered = [], []
    fill, under = type(method).fill, type(method).under

    def rows(features):
        directions = F.normalize(features, dim=-1)[:, :4]
        return {tuple(round(number, 4) for number in row) for row in directions.tolist()}

    def filling(self, views, labels):
        filled.append(rows(views[0]))
        fill(self, views, labels)

    def asked(self, features):
        assert not rows(features) & filled[-1]
        answered.extend(rows(features))
        return under(self, features)

    monkeypatch.setattr(type(method), "fill", filling)
    monkeypatch.setattr(type(method), "under", asked)
    method.cross_fit(known(features, labels), 1)
    assert len(filled) == candidates.FOLDS + 1
    assert len({*answered}) == len(answered) == 45 and filled[-1] == {*answered}


@pytest.mark.parametrize("trainer", FITTED)
def test_pictures_are_not_encoded_and_the_clip_is_as_it_was(vit, monkeypatch, trainer):
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    monkeypatch.setattr(type(vit.image), "forward", None)
    method_of(trainer, vit).cross_fit(known(*clusters(30, 0.5, vit.embed_dim)), 1)
    assert all(value.equal(before[name]) for name, value in vit.state_dict().items())


@pytest.mark.parametrize("trainer", FITTED)
def test_settings_of_few_pictures_are_alike_in_every_draw_and_good(vit, trainer):
    """Eight classes of ten pictures, twelve draws. Chosen by the count of right answers, C is between
    10⁻³ and 10⁵ in such draws, and α between 1 and 100."""
    names = [f"tile {number}" for number in range(8)]
    chosen, reached = [], []
    for seed in range(12):
        features, labels = clusters(400, 3.0, vit.embed_dim, len(names), seed)
        method = method_of(trainer, vit, names)
        method.cross_fit(known(features[:80], labels[:80]), seed)
        figures = method.learned_figures()
        chosen.append([figures[name] for name in ("alpha", "beta", "C") if name in figures])
        asked = features[80:]
        answers = method.predict(method.learner(asked, method.zero_shot(asked))[None])
        reached.append(percent_right(answers, labels[80:]))
        held_out = [HeldOut(method.under(asked), labels[80:])]
        best = method.best(held_out)
        assert reached[-1] > 100 * held_out[0].number_right(best) / 320 - 8
    for numbers in zip(*chosen):
        spread = torch.tensor(numbers).log10().std().item()
        assert spread <= 0.6, f"{trainer}: {numbers}"


def test_a_setting_follows_many_images_and_stays_usual_for_few():
    """Labels that are as likely under one setting as under another leave the usual one; the likelihood
    of many counts for more than the prior."""
    labels = torch.zeros(1, dtype=torch.long)
    settings = [(10.0**power,) for power in range(-2, 3)]

    def under(setting):  # the higher the setting, the likelier are the labels, at any temperature
        share = 0.9 + 0.02 * math.log10(setting[0])
        return torch.tensor([[share, 1 - share]]).log()

    def held_out(images):
        return [HeldOut(lambda setting: under(setting).expand(images, 2), labels.expand(images))]

    assert most_likely(settings, (0.1,), held_out(1)) == (0.1,)
    assert most_likely(
        [*settings, (1.0,)], (1.0,), [HeldOut(lambda _: torch.ones(1, 2), labels)]
    ) == (1.0,)


def test_the_top_of_a_parabola_is_found_between_its_values():
    values = [-((x - 2.3) ** 2) + 5 for x in range(6)]
    assert peak(values) == pytest.approx(5)
    assert peak(values[:2]) == values[1] and peak([1.0, 1.0, 1.0]) == 1.0

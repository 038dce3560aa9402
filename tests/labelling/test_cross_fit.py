"""Trainers that are fitted to image features in folds: answered by what has not seen the pictures, under
settings that little data do not toss about."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from labelling.cross_fit import FeatureSet, cross_fit, search
from labelling.parts import folds
from labelling.task import FOLDS, SINGLE_LABEL
from tests.conftest import make_method, slow_but_for
from tests.methods import FITTED
from trainers.common.errors import UserError
from trainers.learners.features import Grid, MostLikely, log_likelihood, number_right

NAMES = ["cat", "dog", "owl"]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_are_even_in_all_and_in_each_class(labels, number, seed):
    labels = torch.tensor(labels)
    fold = folds(labels, number, seed)
    for part in (fold, *(fold[labels == label] for label in labels.unique())):
        counts = torch.bincount(part, minlength=number)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("groups", [None, torch.arange(40) // 2], ids=["alone", "in pairs"])
def test_folds_are_drawn_by_the_seed(groups):
    """In the order that a folder lists its pictures in, neighbours are alike."""
    labels = torch.arange(40) // 20
    first, again, other = (folds(labels, 5, seed, groups) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=12, max_size=60),
    st.integers(2, 10),
)
def test_groups_of_several_classes_stay_whole_and_leave_each_class_to_fit(pairs, number):
    """Or are refused."""
    labels, groups = torch.tensor(pairs + [(label, 10 + label % 2) for label in range(4)]).T
    try:
        fold = folds(labels, number, 1, groups)
    except UserError:
        return
    assert all(len(fold[groups == group].unique()) == 1 for group in groups.unique())
    assert all(len(fold[labels == label].unique()) > 1 for label in labels.unique())


def method_of(trainer, backbone, names=NAMES):
    beside = {"BESIDE_TEXTS": True} if trainer == "LinearProbe" else {}
    return make_method(trainer, backbone, names, **beside).eval()


def clusters(pictures, spread, width, classes=3, seed=0):
    """Features around a direction per class, which texts know nothing of; on average their noise is
    ``spread`` times as long as what tells the classes apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(pictures) % classes
    centres = torch.randn(classes, width, generator=generator)
    noise = torch.randn(pictures, width, generator=generator)
    return F.normalize(centres[labels] + spread * noise, dim=-1), labels


def known(features, labels, seed=1):
    return FeatureSet(features[None], features, labels, folds(labels, FOLDS, seed))


def percent_right(answers, labels):
    return 100 * (answers.probability.argmax(dim=1) == labels).float().mean().item()


@pytest.mark.parametrize("trainer", FITTED)
def test_what_pictures_show_is_found_and_what_they_do_not_show_is_no_better_than_chance(
    vit, trainer
):
    """With labels that say nothing a picture that had been seen would still be right."""
    features, labels = clusters(60, 0.5, vit.embed_dim)
    answers = cross_fit(method_of(trainer, vit), SINGLE_LABEL, known(features, labels))
    assert percent_right(answers, labels) > 95
    assert answers.probability.sum(dim=1) == pytest.approx(1)
    said = labels[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    answers = cross_fit(method_of(trainer, vit), SINGLE_LABEL, known(features, said))
    assert percent_right(answers, said) < 60


def rows(features):
    """What tells pictures apart, by their directions."""
    return {*map(tuple, F.normalize(features, dim=-1)[:, :4].mul(1e4).round().tolist())}


@pytest.mark.parametrize("trainer", FITTED)
def test_each_picture_is_answered_by_what_has_not_seen_it_and_what_is_kept_has_seen_all(
    vit, trainer, monkeypatch
):
    method = method_of(trainer, vit)
    kind = type(method)
    held_out_logits = kind.held_out_logits
    fit = kind.fit
    seen, answered = [], []

    def answering(self, features, labels, asked, settings):
        assert not rows(features[0]) & rows(asked)
        answered.append(rows(asked))
        return held_out_logits(self, features, labels, asked, settings)

    def fitting(self, features, labels, setting):
        seen.append(rows(features[0]))
        fit(self, features, labels, setting)

    monkeypatch.setattr(kind, "held_out_logits", answering)
    monkeypatch.setattr(kind, "fit", fitting)
    features, labels = clusters(45, 1.0, vit.embed_dim)
    cross_fit(method, SINGLE_LABEL, known(features, labels))
    assert len(answered) == FOLDS
    assert sum(map(len, answered)) == 45
    assert set().union(*answered) == rows(features)
    assert seen == [rows(features)], "what is kept has seen all"


@pytest.mark.parametrize("trainer", FITTED)
def test_a_label_has_no_part_in_what_its_own_fold_is_answered(vit, trainer):
    """By any setting. Which setting is taken, and the temperature, come from the other folds' answers; of
    these the label moves a little, through the fits that have seen its picture."""
    features, labels = clusters(45, 1.5, vit.embed_dim)
    fold = folds(labels, FOLDS, 1)
    places = [(fold == part).nonzero().flatten() for part in fold.unique()]
    changed = labels.clone()
    changed[7] = (labels[7] + 1) % 3
    tried = []
    for given_labels in (labels, changed):
        method = method_of(trainer, vit)
        found, _, _ = search(
            method, SINGLE_LABEL, known(features, given_labels), places, lambda: None
        )
        tried.append(found)
    own = int(fold[7])
    both = tried[0].keys() & tried[1].keys()
    moved = set()
    for setting in both:
        first, second = (found[setting] for found in tried)
        moved |= {part for part in range(FOLDS) if not second[part].equal(first[part])}
    assert moved == {*range(FOLDS)} - {own}


@slow_but_for(FITTED[:1], FITTED, "trainer")
def test_settings_of_few_pictures_are_alike_in_every_draw_and_good(vit, trainer):
    """Eight classes of ten pictures, five draws. Chosen by the count of right answers, C is between
    10⁻³ and 10⁵ in such draws, and α between 1 and 100."""
    chosen = []
    for seed in range(5):
        features, labels = clusters(400, 3.0, vit.embed_dim, 8, seed)
        method = method_of(trainer, vit, [f"tile {number}" for number in range(8)])
        cross_fit(method, SINGLE_LABEL, known(features[:80], labels[:80], seed))
        figures = method.learned_figures()
        chosen.append([figures[name] for name in ("alpha", "beta", "C") if name in figures])
        seen, asked, labels = labels[:80], features[80:], labels[80:]
        answers = method.predict(method.learner(asked, method.zero_shot(asked))[None])
        views = features[None, :80]
        paths = method.held_out_logits(views, seen, asked, method.grid.settings)
        most = max(number_right(logits, labels) for logits in paths)
        assert percent_right(answers, labels) > 100 * most / 320 - 8
    for numbers in zip(*chosen):
        assert torch.tensor(numbers).log10().std() <= 0.6, f"{trainer}: {numbers}"


def test_a_setting_follows_many_images_and_stays_usual_for_few():
    """Five images are answered rightly under every setting; the higher it is, the more of ten are."""
    grid = Grid([(10.0**power,) for power in range(-2, 3)], (0.1,))
    few, many = MostLikely(grid), MostLikely(grid)
    for setting in grid.settings:
        right = torch.arange(10)[:, None] < 7 + round(math.log10(setting[0]))
        logits = torch.where(right, torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9])).log()
        label = torch.zeros(1000, dtype=torch.long)
        few.add(setting, log_likelihood(logits[:5], label[:5]))
        many.add(setting, log_likelihood(logits.repeat(100, 1), label))
    assert few.setting == (0.1,)
    assert many.setting == (100.0,)

"""What cross-validation must not do, whatever it fits: tell a picture's answer by its own label, or
leave a fold without pictures of a class."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from labelling import cross_fit as folding
from labelling.cross_fit import FeatureSet
from labelling.parts import folds
from labelling.task import task_of
from tests.labelling.cases import SINGLE, over_tasks
from trainers.data.images import Images
from trainers.learners.features import Grid, best_temperature


class Deaf:
    """A classifier that learns nothing from labels. Its setting says whether it answers with what a
    picture shows, or with the opposite: labels reach the answers by the choice of the setting and of
    the temperature alone."""

    grid = Grid([(10 ** (power / 2),) for power in range(-2, 7)], (10**1.5,))

    def __init__(self):
        self.learner = torch.nn.Module()
        self.learner.register_buffer("thresholds", torch.zeros(2, dtype=torch.float64))

    def held_out_logits(self, features, labels, asked, settings):
        return (asked * (math.log10(number) - 1) for (number,) in settings)

    def fit(self, features, labels, setting):
        self.setting = setting

    def set_temperature(self, temperature):
        self.temperature = temperature


def answers_in_folds(task, shown, labels):
    """Probabilities (N, 2) of pictures that show (N, 2), each answered from the other folds: every fifth
    picture is in the same one."""
    target = F.one_hot(labels, 2).bool() if task.multi_label else labels
    known = FeatureSet(shown[None], shown, target, torch.arange(len(labels)) % 5)
    return folding.cross_fit(Deaf(), task, known).probability


@over_tasks
@pytest.mark.parametrize("changed", [[7], [*range(2, 200, 5)]], ids=["a picture's", "a fold's"])
def test_changing_labels_changes_nothing_in_the_out_of_fold_answers_to_these_pictures(
    task, changed
):
    """But it changes those to the other folds' pictures: by the temperature or, where there is none, by the
    setting, which one picture does not turn. Hardly more than half of the others' labels are what the
    pictures show: with a whole fold's the opposite setting would be the best."""
    fold = torch.arange(200) % 5
    classes = torch.randint(2, (200,))
    others = (fold != changed[0] % 5).nonzero().flatten()
    labels = classes.clone()
    labels[others[:78]] = 1 - labels[others[:78]]
    shown = F.one_hot(classes, 2).float()
    before = answers_in_folds(task.task, shown, labels)
    labels[changed] = 1 - labels[changed]
    after = answers_in_folds(task.task, shown, labels)
    is_same = (before == after).all(dim=1)
    assert is_same[fold == changed[0] % 5].all()
    if len(changed) > 1 or task is SINGLE:
        assert not is_same[others].any()


def test_the_temperature_that_is_kept_is_the_best_for_all_pictures_out_of_fold():
    """Each under its own label, whatever the folds' order."""
    labels = torch.randint(2, (200,))
    shown = F.one_hot(torch.where(torch.rand(200) < 0.8, labels, 1 - labels), 2).float()
    method = Deaf()
    known = FeatureSet(shown[None], shown, labels, torch.arange(200) % 5)
    folding.cross_fit(method, SINGLE.task, known)
    logits = shown * (math.log10(*method.setting) - 1)
    assert method.temperature == pytest.approx(best_temperature(logits, labels))


def uneven(fold, number):
    """How many more pictures are in the fold that has most than in the one that has fewest."""
    counts = torch.bincount(fold, minlength=number)
    return counts.max() - counts.min()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=25),
    st.integers(2, 6),
    st.integers(0, 5),
)
@example([(0, 4), (0, 1), (1, 1), (1, 1), (1, 1), (1, 1)], 2, 0)
def test_folds_of_groups_are_even_in_each_class_but_for_its_largest_group(scenes, number, seed):
    """Of scenes, each of a class and with so many shots, whatever the other classes have."""
    shots = torch.tensor([size for _, size in scenes])
    labels = torch.tensor([label for label, _ in scenes]).repeat_interleave(shots)
    fold = folds(labels, number, seed, torch.arange(len(scenes)).repeat_interleave(shots))
    for label in labels.unique().tolist():
        largest = max(size for own, size in scenes if own == label)
        assert uneven(fold[labels == label], number) <= largest


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_folds_of_groups_of_one_size_are_even_in_all_but_for_a_group(classes, size, number, seed):
    labels = torch.tensor(classes).repeat(size)
    groups = torch.arange(len(classes)).repeat(size)
    assert uneven(folds(labels, number, seed, groups), number) <= size


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_pictures_of_a_group_are_in_one_fold_of_a_run(multi_label):
    paths = [f"{number:02d}.png" for number in range(60)]
    groups = {path: number // 4 for number, path in enumerate(paths)}
    labels = torch.tensor([groups[path] % 2 for path in paths])
    truth = dict(zip(paths, F.one_hot(labels).bool().numpy()))
    images = Images((), (), (), ["even", "odd"], folds=5, groups=groups, truth=truth)
    fold = task_of(multi_label).folds(images, paths, labels, seed=1)
    of_group = {groups[path]: set() for path in paths}
    for path, part in zip(paths, fold.tolist()):
        of_group[groups[path]].add(part)
    assert {*map(len, of_group.values())} == {1}
    assert set.union(*of_group.values()) == {*range(5)}

"""What cross-validation must not do, whatever it fits: tell a picture's answer by its own label, or
leave a fold without pictures of a class."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_method
from trainers.learners.candidates import Known, folds
from trainers.linearprobe import LinearProbeMethod

FOLDS = "trainers.learners.candidates.folds"  # which divides the pictures


def answers_in_folds(shown, labels, vit, monkeypatch):
    """Probabilities (N, 2) of pictures that show (N, 2), each answered from the other folds: every fifth
    picture is in the same one.

    The classifier learns nothing from labels. Its setting says whether it answers with what a picture
    shows, or with the opposite: labels reach the answers by the choice of the setting and of the
    temperature alone.
    """
    monkeypatch.setattr(FOLDS, lambda labels, *_: torch.arange(len(labels)) % 5)
    monkeypatch.setattr(LinearProbeMethod, "fill", lambda self, features, labels: None)
    monkeypatch.setattr(LinearProbeMethod, "under", lambda self, features: partial(said, features))
    monkeypatch.setattr(LinearProbeMethod, "take", lambda self, setting: None)
    method = make_method("LinearProbe", vit, ["ant", "bee"], CHOICE="likelihood")
    return method.cross_fit(Known(shown[None], shown, labels), 1).probability


def said(features, setting):
    return features * (setting[0] - 10)


@pytest.mark.parametrize("changed", [[7], [*range(2, 200, 5)]], ids=["a picture's", "a fold's"])
def test_changing_labels_changes_nothing_in_the_out_of_fold_answers_to_these_pictures(
    vit, monkeypatch, changed
):
    """But it changes those to the other folds' pictures. Hardly more than half of the others' labels are
    what the pictures show: with a whole fold's the opposite setting would be the best."""
    fold = torch.arange(200) % 5
    classes = torch.randint(2, (200,))
    others = (fold != changed[0] % 5).nonzero().flatten()
    labels = classes.clone()
    labels[others[:78]] = 1 - labels[others[:78]]
    shown = F.one_hot(classes, 2).float()
    before = answers_in_folds(shown, labels, vit, monkeypatch)
    labels[changed] = 1 - labels[changed]
    after = answers_in_folds(shown, labels, vit, monkeypatch)
    is_same = (before == after).all(dim=1)
    assert is_same[fold == changed[0] % 5].all()
    assert not is_same[others].any()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_folds_of_groups_of_one_size_are_even_in_all_and_in_each_class(classes, size, number, seed):
    """A class of one group is divided picture by picture."""
    labels = torch.tensor(classes).repeat(size)
    groups = torch.arange(len(classes)).repeat(size)
    fold = folds(labels, number, seed, groups)
    for part in (fold, *(fold[labels == label] for label in labels.unique())):
        counts = torch.bincount(part, minlength=number)
        assert counts.max() - counts.min() <= size

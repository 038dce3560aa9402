"""One thread for a small fit, of every library; the host program's threads stay as they were."""

import pytest
import scipy.linalg  # noqa: F401, whose libraries are loaded then
import sklearn.linear_model  # noqa: F401, likewise
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.task import FOLDS, SINGLE_LABEL
from tests.conftest import make_method
from tests.methods import FITTED
from trainers.maths.threads import one_thread


def numbers():
    """How many threads each library has now, torch last."""
    return [pool["num_threads"] for pool in threadpool_info()] + [torch.get_num_threads()]


@pytest.fixture
def three():
    """Three threads of every library, as a host program may have them."""
    before = torch.get_num_threads()
    with threadpool_limits(3):
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)


def test_within_there_is_one_thread_and_then_all_is_as_it_was(three):
    before = numbers()
    assert {*before} == {3}
    with one_thread():
        assert {*numbers()} == {1}
        with one_thread():
            assert {*numbers()} == {1}
        assert {*numbers()} == {1}, "the end of an inner block ends nothing"
    assert numbers() == before
    with pytest.raises(ValueError, match="a fit"), one_thread():
        raise ValueError("a fit that fails")
    assert numbers() == before


@pytest.mark.parametrize("trainer", FITTED)
def test_every_fit_to_features_has_one_thread(vit, three, monkeypatch, trainer):
    seen = []

    def noted(*arguments, **settings):
        if len(seen) < 2 * FOLDS:  # to ask takes milliseconds
            seen.append({*numbers()})
        return argmax(*arguments, **settings)

    argmax = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", noted)
    grid = {"SEARCH_STEP": [3, 2]} if trainer == "TipAdapter" else {}
    method = make_method(trainer, vit, ["cat", "dog"], **grid).eval()
    features = torch.randn(40, vit.embed_dim)
    fold = torch.arange(40) // 2 % FOLDS
    known = FeatureSet(features[None], features, torch.arange(40) % 2, fold)
    cross_fit(method, SINGLE_LABEL, known, lambda: noted(features))
    assert len(seen) >= FOLDS
    assert seen == [{1}] * len(seen)
    assert {*numbers()} == {3}

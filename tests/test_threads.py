"""One thread for a small fit, of every library; the host program's threads stay as they were."""

import ast

import numpy
import pytest
import scipy.linalg  # noqa: F401, whose libraries are loaded then
import sklearn.linear_model  # noqa: F401, likewise
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tests.conftest import make_method
from tests.runs import REPOSITORY
from trainers.evaluation.uncertainty import fit_temperature
from trainers.learners.candidates import CANDIDATES, FOLDS, Known
from trainers.maths import threads
from trainers.maths.threads import one_thread

# what computes with threads of its own: modules of scipy, scikit-learn's estimators, decompositions
SOLVERS = {"optimize", "linear_model", "linalg", "svd", "pinverse", "inverse", "lstsq", "cholesky"}
PRODUCT = ("trainers", "results", "analysis", "datasets", "protocols", "app")


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


def solvers(function):
    """Names of solvers that a function mentions itself, not those of functions within."""
    own = [*ast.iter_child_nodes(function)]
    for node in own:  # which grows
        if not isinstance(node, ast.FunctionDef):
            own += ast.iter_child_nodes(node)
        if isinstance(node, ast.Attribute) and node.attr in SOLVERS:
            yield node.attr
        if isinstance(node, ast.ImportFrom):
            yield from {*(node.module or "").split(".")} & SOLVERS


def is_limited(function):
    """Whether a function is decorated by ``one_thread``, or computes within it."""
    expressions = [*function.decorator_list]
    for node in ast.walk(function):
        if isinstance(node, ast.With):
            expressions += [item.context_expr for item in node.items]
    return any("one_thread" in ast.unparse(expression) for expression in expressions)


def test_every_solver_of_the_product_has_one_thread():
    found = []
    for folder in PRODUCT:
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef) and [*solvers(node)]:
                    found.append(node.name)
                    assert is_limited(node), f"{path}:{node.lineno}: {node.name}"
    assert len(found) >= 6, found


@pytest.mark.parametrize("choice", ["accuracy", "likelihood"])
@pytest.mark.parametrize("trainer", CANDIDATES[1:])
def test_every_fit_to_features_has_one_thread(vit, three, monkeypatch, trainer, choice):
    seen = []

    def noted(*arguments, **settings):
        if len(seen) < 2 * FOLDS:  # to ask takes milliseconds
            seen.append({*numbers()})
        return argmax(*arguments, **settings)

    argmax = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", noted)
    grid = {"SEARCH_STEP": [3, 2]} if trainer == "TipAdapter" else {}
    method = make_method(trainer, vit, ["cat", "dog"], CHOICE=choice, **grid).eval()
    generator = numpy.random.default_rng(0)
    features = torch.from_numpy(generator.normal(size=(40, vit.embed_dim))).float()
    pictures = Known(features[None], features, torch.arange(40) % 2)
    method.cross_fit(pictures, 1, lambda: noted(features))
    assert len(seen) >= FOLDS and seen == [{1}] * len(seen)
    assert {*numbers()} == {3}


def test_a_temperature_is_fitted_with_one_thread(three, monkeypatch):
    seen = []
    scaled = "trainers.evaluation.uncertainty.temperature_scaled"

    def noted(log_probability, temperature):
        seen.append({*numbers()})
        return (log_probability / temperature).softmax(dim=1)

    monkeypatch.setattr(scaled, noted)
    fit_temperature(torch.randn(20, 3).log_softmax(dim=1), torch.arange(20) % 3)
    assert seen and seen == [{1}] * len(seen)


def test_libraries_are_looked_for_once(monkeypatch):
    """It takes milliseconds, and a fit has many parts."""
    with one_thread():
        monkeypatch.setattr("threadpoolctl.threadpool_limits", None)
        with one_thread():
            assert threads.IS_LIMITED.get()
    assert not threads.IS_LIMITED.get()

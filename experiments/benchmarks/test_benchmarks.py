"""The benchmarks: the usual way gives the same numbers as ours, and the counted FLOPs are right."""

import pytest
import torch

from experiments.benchmarks import step
from tests.conftest import scrambled

CLASSES = 5
OPTIONS = {"CDC": {"N_TEMPLATES": 3, "PROMPT_DEPTH": 2}, "MaPLe": {"PROMPT_DEPTH": 2}}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(monkeypatch):
    # E, pixels, layers, D_v, patch …, D, heads, layers
    shape = (32, 32, 3, 64, 8, 77, 49408, 64, 1, 3)
    monkeypatch.setitem(step.SHAPES, "tiny", (shape, "tiny"))


@pytest.fixture(params=OPTIONS)
def both(request, small):
    """A method in our and in the usual way, no two templates alike; gradients are kept, not
    followed."""
    torch.manual_seed(1)
    ours, usual = step.build(request.param, "tiny", CLASSES, **OPTIONS[request.param])
    scrambled(ours.learner)
    ours.optim.step = lambda: None
    return ours, usual


@pytest.mark.parametrize("part", ["text encoder", "step", "test"])
def test_the_usual_way_gives_the_same_numbers(both, part):
    """Values and, in training, the gradients of all that is learned."""

    def run(method, is_usual):
        torch.manual_seed(2)  # the same images
        if part == "test":
            return step.test(method, 2, is_usual)()
        views = 3 if len(method.learner.ctx.shape) == 3 else 1
        work = step.training_step(method, views, 2)
        value = step.text_encoder(method)() if part == "text encoder" else work()
        gradients = (p.grad for p in method.learner.parameters() if p.grad is not None)
        return torch.cat([part.flatten() for part in (value, *gradients)])

    ours, usual = map(run, both, (False, True))
    assert len(usual) > 1
    assert (ours - usual).norm() < 1e-4 * usual.norm()


def test_flops_are_those_of_the_products_attention_of_cpus_included():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert step.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    query = torch.randn(2, 3, 11, 8)  # (B, heads, L, D)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert step.count_flops(lambda: attention(query, query, query)) == 2 * (2 * 2 * 3 * 11 * 11 * 8)

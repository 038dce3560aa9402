"""The text encoder's layouts: whatever is padded, the features and gradients are those of the ``clip``
package over all positions."""

import pytest
import torch

from tests.prompting.models import pair, relative
from tests.reference import stock_text_features
from trainers.prompting import text
from trainers.prompting.text import groups_of

PACKED = 0  # each length has a group
PADDED = float("inf")  # all texts are as long as the longest
SOME = 1e6  # some lengths have one together
LENGTHS = torch.tensor([[3, 2, 6, 3, 9], [5, 4, 8, 5, 11]])  # (M, K): own tokens of each text
PREFIX = 5


@pytest.fixture
def in_float64(monkeypatch):
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def features(encoder, stock, prompts_of_classes, is_ours):
    """Features (M, K, E) and the gradient of their squares' sum to all that is put in."""
    torch.manual_seed(0)
    width = encoder.width
    templates, classes = LENGTHS.shape
    prefix = torch.randn(templates, PREFIX, width, requires_grad=True)
    suffix = torch.randn(templates, classes, int(LENGTHS.max()), width, requires_grad=True)
    shape = (templates, classes, 2, width) if prompts_of_classes else (templates, 2, width)
    deep = torch.randn(shape, requires_grad=True)
    if is_ours:
        made = encoder(prefix, suffix, LENGTHS - 1, [deep])
    else:
        rows = []
        for m in range(templates):
            for k in range(classes):
                tokens = torch.zeros(77, width)
                tokens[: PREFIX + suffix.shape[2]] = torch.cat([prefix[m], suffix[m, k]])
                own = deep[m, k] if prompts_of_classes else deep[m]
                end = torch.tensor([PREFIX + LENGTHS[m, k] - 1])
                rows.append(stock_text_features(stock, tokens[None], end, [own])[0])
        made = torch.stack(rows).unflatten(0, LENGTHS.shape)
    gradients = torch.autograd.grad(made.square().sum(), [prefix, suffix, deep])
    return torch.cat([part.flatten() for part in (made, *gradients)])


@pytest.mark.parametrize("flops", [PACKED, SOME, PADDED])
@pytest.mark.parametrize("prompts_of_classes", [False, True])
def test_every_layout_gives_the_stock_clips_features_and_gradients(
    in_float64, monkeypatch, flops, prompts_of_classes
):
    ours, stock = pair("vit")
    monkeypatch.setattr(ours.text, "layouts", {})
    monkeypatch.setitem(text.GROUP_FLOPS, "cpu", flops)
    made = features(ours.text, stock, prompts_of_classes, True)
    assert relative(made, features(ours.text, stock, prompts_of_classes, False)) < 1e-9
    (layout,) = ours.text.layouts.values()
    groups = {PACKED: 8, SOME: 5, PADDED: 1}
    assert len(layout.lengths) == groups[flops]


@pytest.mark.parametrize("cost", [0, 1, 7, 100, float("inf")])
def test_the_groups_are_those_of_the_least_cost(cost):
    """Of all ways to cut the lengths into neighbours, tried one by one."""
    lengths = [2, 3, 5, 6, 9, 12]
    counts = [3, 9, 1, 4, 2, 1]

    def cost_of(groups):
        # with an infinite cost the number of groups decides
        tokens = sum(length * count for length, count in groups)
        return (len(groups), tokens) if cost == float("inf") else tokens + cost * len(groups)

    ways = []
    for cuts in range(2 ** (len(lengths) - 1)):
        groups = []
        waiting = 0
        for place, (length, count) in enumerate(zip(lengths, counts)):
            waiting += count
            if place == len(lengths) - 1 or cuts >> place & 1:
                groups.append((length, waiting))
                waiting = 0
        ways.append(groups)
    found = groups_of(lengths, counts, cost)
    assert sum(count for _, count in found) == sum(counts)
    assert cost_of(found) == min(map(cost_of, ways))

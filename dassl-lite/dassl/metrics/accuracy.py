"""Top-k accuracy."""

from collections.abc import Sequence

from torch import Tensor


def compute_accuracy(
    output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)
) -> list[Tensor]:
    """For each k, the percentage of rows whose target is among the k highest logits: a list of
    1-element tensors."""
    if not isinstance(output, Tensor):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices  # (b, max k), best first
    hits = ranked.eq(target.view(-1, 1))  # (b, max k)
    return [hits[:, :k].float().sum().view(1) * (100.0 / target.size(0)) for k in topk]

"""The phrases that templates start from: usual ones, and which of them are of use to a CLIP and its
training images."""

import torch
from torch import Tensor

from .templates import DIVERSE_TEMPLATES

AFTER = " {}."  # what follows a phrase: the class name and a full stop
PHRASES = [
    "a photo of a",
    "a picture of a",
    "an image of a",
    "a view of a",
    *(
        template.removesuffix(AFTER)
        for template in DIVERSE_TEMPLATES[1:]
        if template.endswith(AFTER)
    ),
]
USEFUL = 0.05  # how far below the best phrase's accuracy another may be


def choose_phrases(log_probability: Tensor, labels: Tensor, number: int) -> list[int]:
    """Which phrases to start from: each of use by itself, and together least wrong.

    Those whose accuracy is at most ``USEFUL`` below the best one's are candidates. They are taken
    greedily: next the one with which the mean probability of those taken has the least negative
    log-likelihood; a phrase that errs on the same images as the others adds little.

    Args:
        log_probability: (P, N, K) answers of each of P phrases on N training images; labels: (N,).
        number: how many are wanted.

    Returns:
        up to ``number`` different indices, best first; fewer where fewer are of use.
    """
    accuracy = (log_probability.argmax(dim=-1) == labels).double().mean(dim=1)  # (P,)
    candidates = (accuracy >= accuracy.max() - USEFUL).nonzero()[:, 0].tolist()
    of_label = log_probability.double()[:, range(len(labels)), labels].exp()  # (P, N)
    chosen: list[int] = []
    while candidates and len(chosen) < number:
        total = of_label[chosen].sum(dim=0)
        loss = torch.stack(
            [-((total + of_label[index]) / (len(chosen) + 1)).log().mean() for index in candidates]
        )
        chosen.append(candidates.pop(int(loss.argmin())))
    return chosen

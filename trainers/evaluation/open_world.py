"""Evaluates a classifier that was trained on base classes on images and names of base and new classes together.

References:
    - Zhou et al. (2024), "DeCoOp: Robust Prompt Tuning with Out-of-Distribution Detection": accuracy among all classes.
    - Hua et al. (2025), "OpenworldAUC: Towards Unified Evaluation and Optimization for Open-world Prompt Tuning".
"""

from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from .prediction import Prediction, percent_right
from .uncertainty import auroc

NEW_PROBABILITY = "new_probability"


def open_world(prediction: Prediction, labels: Tensor, base: int) -> dict[str, Any]:
    """Figures of N images over K classes, of which the first ``base`` were trained on.

    Args:
        prediction: of images of both; labels: (N,).

    Returns:
        dict, in percent: ``base_accuracy`` and ``new_accuracy`` of their images, with all K classes to choose from; ``auroc``, measure of doubt → how
        often a new image has more of it than a base image; ``openworld_auc`` likewise, see ``openworld_auc``, where an image is rightly
        classified if its class is the most probable one of its own kind, base or new. Measures are those of ``Prediction.uncertainties`` and
        ``new_probability``, the sum of the probabilities of the new classes.

    Raises:
        UserError: all images are of one kind.
    """
    probability, is_new = prediction.probability, labels >= base
    number = int(is_new.sum())
    if not 0 < number < len(labels):
        raise UserError(
            f"TEST.OPEN needs test images of base classes and of new ones, there are {len(labels) - number} and {number}"
        )
    answer = probability.argmax(dim=1)
    of_its_kind = torch.where(
        is_new, probability[:, base:].argmax(dim=1) + base, probability[:, :base].argmax(dim=1)
    )  # (N,)
    doubts = {NEW_PROBABILITY: probability[:, base:].sum(dim=1), **prediction.uncertainties()}
    return {
        "base_accuracy": percent_right(answer[~is_new], labels[~is_new]),
        "new_accuracy": percent_right(answer[is_new], labels[is_new]),
        "auroc": {name: auroc(doubt, is_new) for name, doubt in doubts.items()},
        "openworld_auc": {
            name: openworld_auc(doubt, of_its_kind == labels, is_new)
            for name, doubt in doubts.items()
        },
    }


def openworld_auc(doubt: Tensor, right: Tensor, is_new: Tensor) -> float:
    """OpenworldAUC (Hua et al., 2025), E over pairs of a base and a new image of 1[g(x_b) = y_b] · 1[r(x_n) > r(x_b)] · 1[h(x_n) = y_n].

    Args:
        doubt: r, (N,), larger where an image is taken for new; right: (N,) bool, whether its class is known among those of its kind, by g for base
            images and h for new ones; is_new: (N,) bool.

    Returns:
        percent of all pairs; equal doubts tell nothing apart.
    """
    sure = doubt[right & ~is_new].sort().values
    pairs = torch.searchsorted(
        sure, doubt[right & is_new]
    ).sum()  # for each new image the base images below it
    return 100 * pairs.item() / (int(is_new.sum()) * int((~is_new).sum()))

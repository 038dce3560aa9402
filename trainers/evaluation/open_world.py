"""Measures the answers of a run that was trained on base classes and is given base and new
classes together.

OpenworldAUC also needs the same prompts' answers to either half alone: ``results.openworld``.

References:
    - Zhou et al. (2024), "DeCoOp: Robust Prompt Tuning with Out-of-Distribution Detection": accuracy
      among all classes.
    - Hua et al. (2025), "OpenworldAUC: Towards Unified Evaluation and Optimization for Open-world
      Prompt Tuning": the largest probability of a base class tells the halves apart.
"""

from torch import Tensor

from ..common.errors import UserError
from .prediction import Metrics, Prediction, percent_right
from .uncertainty import auroc


def signs_of_new(prediction: Prediction, base: int) -> dict[str, Tensor]:
    """Return scores that may tell images of new classes from base ones: name → (N,), larger for new.

    ``base_probability`` is the largest probability of a base class, negated; ``new_probability``
    the sum of the new classes' probabilities.

    Args:
        prediction: of N images over K classes; the first ``base`` are base classes.
    """
    probability = prediction.probability
    return {
        "base_probability": -probability[:, :base].max(dim=1).values,
        "new_probability": probability[:, base:].sum(dim=1),
    }


def open_world(prediction: Prediction, labels: Tensor, base: int) -> Metrics:
    """Measure N images over K classes; the first ``base`` were trained on.

    Args:
        prediction: of images of both; labels: (N,).

    Returns:
        dict, in percent: ``base_accuracy`` and ``new_accuracy`` of their images, with all K classes
        to choose from; ``auroc``, name → how often a new image has more of it than a base image, of
        ``signs_of_new`` and ``Prediction.uncertainties``.

    Raises:
        UserError: all images are of one half.
    """
    is_new = labels >= base
    answer = prediction.probability.argmax(dim=1)
    number = int(is_new.sum())
    if not 0 < number < len(labels):
        raise UserError(
            "TEST.OPEN needs test images of base classes and of new ones, there are "
            f"{len(labels) - number} and {number}"
        )
    signs = {**signs_of_new(prediction, base), **prediction.uncertainties()}
    return {
        "base_accuracy": percent_right(answer[~is_new], labels[~is_new]),
        "new_accuracy": percent_right(answer[is_new], labels[is_new]),
        "auroc": {name: auroc(sign, is_new) for name, sign in signs.items()},
    }

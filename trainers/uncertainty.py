"""How good a classifier's doubts are: calibration, and whether what it is unsure of is what it gets wrong. Pure functions on tensors.

References:
    Brier (1950), "Verification of forecasts expressed in terms of probability".
    Nguyen & O'Connor (2015), "Posterior calibration and exploratory analysis": bins of equal mass.
    Geifman & El-Yaniv (2017), "Selective Classification for Deep Neural Networks": risk and coverage.
"""
import torch
from torchmetrics.functional.classification import binary_auroc

BINS = 15


def brier_score(probability, labels):
    """Mean squared distance in [0, 2] of probabilities (N, K) from the true class's indicator, labels (N,)."""
    target = torch.nn.functional.one_hot(labels, probability.shape[1])
    return (probability - target).square().sum(dim=1).mean().item()


def adaptive_calibration_error(probability, labels, bins=BINS):
    """Expected calibration error in [0, 1] of the answers over bins that hold equally many images.

    Args:
        probability: (N, K); labels: (N,); bins: at most that many, none of them empty.
    """
    confidence, answer = probability.max(dim=1)
    confidence, order = confidence.double().sort(stable=True)
    right = (answer == labels)[order].double()
    gaps = [abs(r.mean() - c.mean()) * len(c) for c, r in zip(confidence.tensor_split(bins), right.tensor_split(bins)) if len(c)]
    return (sum(gaps) / len(confidence)).item()


def selective_risk(uncertainty, wrong):
    """Share of wrong answers among the n least uncertain, for n = 1 … N.

    Args:
        uncertainty: (N,), larger is more doubtful; wrong: (N,) bool.

    Returns:
        (N,) float64 in [0, 1]. Where uncertainties are equal it is the mean over all orders of those images.
    """
    uncertainty, order = uncertainty.sort(stable=True)
    wrong = wrong[order].double()
    _, group, size = uncertainty.unique_consecutive(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(size), dtype=torch.float64).index_add_(0, group, wrong) / size
    return mean[group].cumsum(0) / torch.arange(1, len(wrong) + 1)


def doubt(uncertainty, wrong):
    """How well an uncertainty (N,) tells wrong answers (N,) from right ones.

    Returns:
        dict: ``aurc``, area under the risk–coverage curve (mean of ``selective_risk``) in percent, lower is better; ``error_auroc``, area
        under the ROC curve in percent, 50 for chance, or None where all answers are right or all are wrong.
    """
    both = 0 < wrong.sum() < len(wrong)
    # ranks: torchmetrics takes scores for logits, and squeezes them, unless they lie in [0, 1]
    rank = uncertainty.unique(return_inverse=True)[1].double() / len(wrong)
    return {"aurc": 100 * selective_risk(uncertainty, wrong).mean().item(),
            "error_auroc": 100 * binary_auroc(rank, wrong.long()).item() if both else None}


def doubt_threshold(uncertainty, wrong, max_error):
    """Up to which uncertainty answers may be given, as many as possible, so that at most the share ``max_error`` of them is wrong.

    Args:
        uncertainty: (N,), larger is more doubtful; wrong: (N,) bool; max_error: in [0, 1).

    Returns:
        the threshold, one of the uncertainties; the share of images at or below it; the share of wrong answers among those. None where
        even the least uncertain answers are wrong more often.
    """
    uncertainty, order = uncertainty.sort(stable=True)
    number = torch.arange(1, len(wrong) + 1)
    error = wrong[order].double().cumsum(0) / number
    last_of_equals = torch.cat([uncertainty[1:] != uncertainty[:-1], torch.tensor([True])])
    allowed = ((error <= max_error) & last_of_equals).nonzero()
    if len(allowed) == 0:
        return None
    best = allowed[-1].item()
    return uncertainty[best].item(), (best + 1) / len(wrong), error[best].item()

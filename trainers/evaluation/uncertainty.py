"""Quality of a classifier's uncertainty: calibration, and whether uncertain answers are the wrong
ones. Pure functions on tensors.

References:
    - Brier (1950), "Verification of forecasts expressed in terms of probability".
    - Nguyen & O'Connor (2015), "Posterior calibration and exploratory analysis": bins of equal mass.
    - Geifman & El-Yaniv (2017), "Selective Classification for Deep Neural Networks": risk and coverage.
    - Wang et al. (2024), "Open-Vocabulary Calibration for Fine-tuned CLIP": distance-aware
      calibration (DAC).
    - Guo et al. (2017), "On Calibration of Modern Neural Networks", §4.2: temperature scaling.
    - Platt (1999), "Probabilistic Outputs for Support Vector Machines", §2.2: targets of N answers that
      are all right, (N + 1) / (N + 2).
    - Hendrycks & Gimpel (2017), "A Baseline for Detecting Misclassified and Out-of-Distribution
      Examples": AUROC of a measure of doubt.
"""

import math

import torch
from torch import Tensor

from ..devices import in_float64
from ..maths.threads import one_thread

BINS = 15
# DAC's: texts of base classes that a distance is taken to, and below which distance a text is one
# of theirs
NEIGHBOURS = 5
SAME_TEXT = 0.05
# limits of the search, which only answers that are no better than chance reach
TEMPERATURE_BOUNDS = (0.01, 100.0)


def brier_score(probability: Tensor, labels: Tensor) -> float:
    """Mean squared distance in [0, 2] of probabilities (N, K) from the true class's indicator,
    labels (N,)."""
    target = torch.nn.functional.one_hot(labels, probability.shape[1])
    return (probability - target).square().sum(dim=1).mean().item()


def expected_calibration_error(probability: Tensor, labels: Tensor) -> float:
    """Mean distance in [0, 1] of confidence from accuracy over ``BINS`` bins of equal width,
    weighted by images.

    Args:
        probability: (N, K); labels: (N,).
    """
    confidence, answer = probability.max(dim=1)
    return calibration_error(confidence, answer == labels)


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error of confidences (N,) in answers that are right (N,) or not."""
    limits = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype)
    # (N,), full confidence beyond the last
    place = torch.bucketize(confidence, limits, right=True) - 1
    count, confident, rights = (
        torch.zeros(BINS + 1).scatter_add_(0, place, values.float())
        for values in (torch.ones_like(confidence), confidence, right)
    )
    gap = (rights / count).nan_to_num() - (confident / count).nan_to_num()
    return (gap.abs() * (count / count.sum())).sum().item()


def adaptive_calibration_error(probability: Tensor, labels: Tensor) -> float:
    """Expected calibration error in [0, 1] of the answers over at most ``BINS`` bins that hold
    equally many images.

    Args:
        probability: (N, K); labels: (N,).
    """
    confidence, answer = probability.max(dim=1)
    confidence, order = confidence.double().sort(stable=True)
    right = (answer == labels)[order].double()
    parts = zip(confidence.tensor_split(BINS), right.tensor_split(BINS))
    return sum(abs(r.mean() - c.mean()).item() * len(c) for c, r in parts if len(c)) / len(
        confidence
    )


def selective_risk(uncertainty: Tensor, wrong: Tensor) -> Tensor:
    """Share of wrong answers among the n least uncertain, for n = 1 … N.

    Args:
        uncertainty: (N,), larger is more doubtful; wrong: (N,) bool.

    Returns:
        (N,) float64 in [0, 1]. Where uncertainties are equal it is the mean over all orders of
        those images.
    """
    uncertainty, order = uncertainty.sort(stable=True)
    wrong = wrong[order].double()
    _, group, size = uncertainty.unique_consecutive(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(size), dtype=torch.float64).index_add_(0, group, wrong) / size
    risk: Tensor = mean[group].cumsum(0) / torch.arange(1, len(wrong) + 1)
    return risk


def doubt(uncertainty: Tensor, wrong: Tensor) -> dict[str, float | None]:
    """Measure how well an uncertainty (N,) tells wrong answers (N,) from right ones.

    Returns:
        dict: ``aurc``, area under the risk–coverage curve (mean of ``selective_risk``) in percent,
        lower is better; ``error_auroc``, area under the ROC curve in percent, 50 for chance, or
        None where all answers are right or all are wrong.
    """
    return {
        "aurc": 100 * selective_risk(uncertainty, wrong).mean().item(),
        "error_auroc": auroc(uncertainty, wrong),
    }


def auroc(uncertainty: Tensor, doubtful: Tensor) -> float | None:
    """Area under the ROC curve: how often, of an image that should be uncertain and another, the first has
    the larger uncertainty (equal ones: half).

    Args:
        uncertainty: (N,); doubtful: (N,) bool, the answers that should have the larger ones.

    Returns:
        percent, 50 for chance; None where all are doubtful or none is.
    """
    if not 0 < doubtful.sum() < len(doubtful):
        return None
    # here, since importing a method must not take its time
    from sklearn.metrics import roc_auc_score

    return 100 * float(roc_auc_score(doubtful.numpy(), uncertainty.numpy()))


def temperature_scaled(log_probability: Tensor, temperature: float | Tensor) -> Tensor:
    """Probabilities (N, K) ∝ p^(1/T) of log-probabilities log p (N, K) under a temperature T > 0,
    one for all or (N, 1), in float64.

    It is softmax(logits / T) (Guo et al., 2017, eq. 9) wherever p is a softmax of logits, and asks
    for nothing but p where it is none, as with the expected probabilities of a Dirichlet. T > 1
    makes answers less certain; which class is the most probable stays.
    """
    return (in_float64(log_probability) / temperature).softmax(dim=1)


def distance_temperatures(
    tuned: Tensor, tuned_base: Tensor, zero_shot: Tensor, zero_shot_base: Tensor
) -> Tensor:
    """Temperatures (K,) of DAC (Wang et al., 2024): an image has its answered class's.

    T_k = exp(d_k − d⁰_k), d_k being the mean distance of the class's text from the nearest texts of
    base classes, at most 5, under the prompts, and d⁰_k the same without: where tuning has moved a
    class away from the trained ones, its answers are made less certain. A text that lies on
    a base class's has T = 1. With M templates d_k is their mean.

    Args:
        tuned: (M, K, E) texts of the classes that are asked for, tuned_base: (M, B, E) of the base
            classes; zero_shot, zero_shot_base: the same without prompts, (K, E) and (B, E); all of
            length one.
    """

    def nearest(texts: Tensor, base: Tensor) -> Tensor:
        distances = torch.cdist(texts.double(), base.double())
        return distances.sort(dim=-1).values[..., :NEIGHBOURS]  # (…, K, 5)

    after = nearest(tuned, tuned_base)
    before = nearest(zero_shot, zero_shot_base)
    temperature = (after.mean(dim=-1).mean(dim=0) - before.mean(dim=-1)).exp()
    return torch.where(after[..., 0].mean(dim=0) < SAME_TEXT, 1.0, temperature)


@one_thread()
def fit_temperature(log_probability: Tensor, labels: Tensor) -> float:
    """The temperature under which labels (N,) are most likely, beside about one mistake that was not seen:
    it minimises the mean of −Σ_k t_k log q_k, q being the ``temperature_scaled`` probability, where t is
    (N + 1) / (N + 2) for the label and the rest for the most probable of the other classes.

    These targets are Platt's (1999, §2.2), Laplace's rule of succession. Without them the most likely
    temperature is 0 where all answers are right, and each of them would be certain. With N of N right
    the mean probability of a mistake is at least about 1 / (N + 2): exactly so where all pictures are
    equally clear, and more where some are less clear than others. In the sharpness b = 1/T the mean is
    convex (log-sum-exp of linear functions), and its slope is the mean of E_q[log p] − Σ_k t_k log p_k;
    T is where the slope is zero.

    Args:
        log_probability: (N, K), finite; labels: (N,) class indices.

    Returns:
        T within ``TEMPERATURE_BOUNDS``, at their end where the optimum lies beyond it; 1 for a single
        class.
    """
    if log_probability.shape[1] == 1:
        return 1.0
    log_probability = in_float64(log_probability)
    labels = labels.to(log_probability.device)
    own = log_probability.gather(1, labels[:, None])[:, 0]  # (N,)
    others = log_probability.scatter(1, labels[:, None], -math.inf).amax(dim=1)  # (N,)
    unseen = 1 / (len(labels) + 2)
    return best_temperature(log_probability, (1 - unseen) * own + unseen * others)


def best_temperature(log_probability: Tensor, target: Tensor) -> float:
    """Return the temperature that minimises the mean of −Σ_k t_k log q_k over N images, q being the
    ``temperature_scaled`` probability: there the mean of E_q[log p] is that of Σ_k t_k log p_k.

    Args:
        log_probability: (N, K), log p, finite and in float64; target: (N,), Σ_k t_k log p_k.

    Returns:
        T within ``TEMPERATURE_BOUNDS``, at their end where the optimum lies beyond it.
    """

    def slope(log_temperature: float) -> float:
        scaled = temperature_scaled(log_probability, math.exp(log_temperature))  # (N, K)
        return ((scaled * log_probability).sum(dim=1) - target).mean().item()

    from scipy.optimize import brentq  # here, since importing a method must not take its time

    coldest, hottest = map(math.log, TEMPERATURE_BOUNDS)
    if slope(coldest) <= 0:
        return TEMPERATURE_BOUNDS[0]
    if slope(hottest) >= 0:
        return TEMPERATURE_BOUNDS[1]
    return math.exp(brentq(slope, coldest, hottest, xtol=1e-12))

"""Scores and predictions for a batch of images, and their metrics."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.fingerprints import image_name
from ..common.readers import Stored
from ..devices import in_float64
from .uncertainty import adaptive_calibration_error, brier_score, doubt, expected_calibration_error

TOP = 5  # classes of an image that are kept
WITHOUT_BATCH = "vote_weight"  # the only field without a batch dimension
Metrics = dict[str, Stored]  # of a split, as a record has them, by ``measure``


@dataclass
class Scores:
    """Scores of one forward pass for B images, M templates and K classes; features are normalised,
    everything is fp32.

    Attributes:
        logits: (M, B, K), τ · cos(image, text).
        image_features: (M, B, E), or (1, B, E) where all templates see the same image and the image
            encoder is not prompted.
        text_features: (M, K, E); (B, K, E) where the text depends on the image.
        images: (V, B, 3, H, W), the shown pixels, one entry a view.
        unprompted: (V, B, E), CLIP's own features of the images; None until a loss has asked for
            them (``Method.unprompted``).
    """

    logits: Tensor
    image_features: Tensor
    text_features: Tensor
    images: Tensor
    unprompted: Tensor | None = field(default=None, kw_only=True)

    def of_template(self, m: int) -> "Scores":
        """Return one template's scores, with its own view or the common one."""

        def own(part: Tensor) -> Tensor:
            return part[m % len(part)][None]

        unprompted = None if self.unprompted is None else own(self.unprompted)
        return Scores(
            own(self.logits),
            own(self.image_features),
            own(self.text_features),
            own(self.images),
            unprompted=unprompted,
        )


@dataclass
class Prediction:
    """Answers for B images over K classes.

    Attributes:
        probability: (B, K), sums to one.
        votes: (M, B, K), each template's own answer; None where nothing is fused.
        vacuity: (B,) in (0, 1], the uncertainty mass of the fused opinion; None where no evidence
            was learned.
        conflict: (B,) in [0, 1), the mass of the templates' joint belief on different classes; None
            where no evidence was learned.
        energy: (B,), −logsumexp_k of the logits, mean over templates (Liu et al., 2020,
            "Energy-based Out-of-distribution Detection").
        vote_vacuity: (M, B) in (0, 1], the uncertainty mass of each vote's own opinion; None where no
            evidence was learned.
        vote_weight: (M,), the shares that the votes have in the answer; they sum to one. None where
            nothing is fused.
        unfamiliar: (B,) in (0, 1], p-values of whether the images come as the training images came; None
            where whoever asks has none.
    """

    probability: Tensor
    votes: Tensor | None = None
    vacuity: Tensor | None = None
    conflict: Tensor | None = None
    energy: Tensor | None = None
    vote_vacuity: Tensor | None = None
    vote_weight: Tensor | None = None
    unfamiliar: Tensor | None = None

    def uncertainties(self) -> dict[str, Tensor]:
        """Measures of uncertainty: name → (B,), larger is more uncertain.

        ``max_probability`` is 1 − max p, as the sum of the other probabilities: the difference itself
        has no digits left, and so no order, where an answer is certain to seven.
        """
        known = self.known()
        answer = self.probability.argmax(dim=1, keepdim=True)
        return {
            "max_probability": self.probability.scatter(1, answer, 0).sum(dim=1),
            **{name: known[name] for name in ("energy", "vacuity", "conflict") if name in known},
        }

    def known(self) -> dict[str, Tensor]:
        """The tensors that are there, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers, none of them infinite."""
        return all(bool(value.isfinite().all()) for value in self.known().values())

    def check_finite(self) -> None:
        """Check that the answers are finite.

        Raises:
            UserError: an answer is not finite.
        """
        if not self.is_finite:
            raise UserError(
                "the answers are not numbers (NaN or infinite): the weights of the CLIP or the prompts "
                "are broken, get or train them again"
            )

    def cpu(self) -> "Prediction":
        return self.with_each(lambda _, value: value.float().cpu())

    def with_each(self, change: Callable[[str, Tensor], Tensor]) -> "Prediction":
        """Answers whose tensors are what ``change`` makes of these, of name and tensor."""
        changed: dict[str, Any] = {
            name: change(name, value) for name, value in self.known().items()
        }
        return replace(self, **changed)

    def part(self, chosen: Tensor) -> "Prediction":
        """The answers to some of the images, or to all in another order; chosen: (n,) indices."""

        def of_chosen(name: str, value: Tensor) -> Tensor:
            return (
                value
                if name == WITHOUT_BATCH
                else value.index_select(dimension(name, value), chosen)
            )

        return self.with_each(of_chosen)

    @staticmethod
    def concatenate(parts: Sequence["Prediction"]) -> "Prediction":
        """Join the predictions of several batches."""

        def of_all(name: str, value: Tensor) -> Tensor:
            if name == WITHOUT_BATCH:
                return value
            return torch.cat([getattr(part, name) for part in parts], dimension(name, value))

        return parts[0].with_each(of_all)


def dimension(name: str, value: Tensor) -> int:
    """Return the images' dimension in an answer: (B,), (M, B), (B, K), (M, B, K)."""
    return -1 if value.dim() == 1 or name == "vote_vacuity" else -2


def measure(prediction: Prediction, labels: Tensor, classnames: Sequence[str]) -> Metrics:
    """Metrics of a split.

    Args:
        prediction: of B images.
        labels: (B,) class indices.
        classnames: K names.

    Returns:
        dict of plain numbers: ``accuracy``, ``macro_f1`` in percent; ``per_class_accuracy``, class
        name → percent for the classes that occur; ``ece`` (expected calibration error, 15
        equal-width bins, percent), ``adaptive_ece`` (15 bins of equally many images), ``nll``
        (nats) and ``brier``; ``uncertainty``, name of a measure of doubt → ``aurc`` and
        ``error_auroc``, by ``uncertainty.doubt``; where there are templates ``template_accuracy``
        (M numbers, percent), and ``mean_probability_ece`` and so on of the templates' mean; where
        there is evidence ``mean_vacuity`` in (0, 1] and ``mean_conflict`` in [0, 1).
    """
    from sklearn.metrics import f1_score  # here, since importing a method must not take its time

    probability = prediction.probability
    answer = prediction.probability.argmax(dim=1)
    present = labels.unique().tolist()
    counts = Counter(classnames)
    # two of ImageNet's classes are "sunglasses"
    shown_names = [
        f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(classnames)
    ]
    doubts = prediction.uncertainties()
    metrics = {
        "images": len(labels),
        "accuracy": percent_right(answer, labels),
        "macro_f1": 100 * float(f1_score(labels, answer, average="macro", labels=present)),
        "per_class_accuracy": {
            shown_names[label]: percent_right(answer[labels == label], label) for label in present
        },
        **calibration(probability, labels),
        "uncertainty": {name: doubt(value, answer != labels) for name, value in doubts.items()},
    }
    if prediction.votes is not None:
        metrics["template_accuracy"] = [
            percent_right(vote.argmax(dim=1), labels) for vote in prediction.votes
        ]
        mean = calibration(prediction.votes.mean(dim=0), labels)
        metrics |= {f"mean_probability_{name}": value for name, value in mean.items()}
    evidence = [name for name in ("vacuity", "conflict") if name in doubts]
    return {**metrics, **{f"mean_{name}": doubts[name].mean().item() for name in evidence}}


def percent_right(answer: Tensor, labels: Tensor | int) -> float:
    return 100 * in_float64(answer == labels).mean().item()


def calibration(probability: Tensor, labels: Tensor) -> dict[str, float]:
    """Calibration errors (percent), negative log-likelihood (nats) and Brier score of (B, K)
    probabilities."""
    likelihood = probability.gather(1, labels[:, None]).clamp(
        min=torch.finfo(probability.dtype).tiny
    )
    return {
        "ece": 100 * expected_calibration_error(probability, labels),
        "adaptive_ece": 100 * adaptive_calibration_error(probability, labels),
        "nll": -likelihood.log().mean().item(),
        "brier": brier_score(probability, labels),
    }


def per_image(
    prediction: Prediction, labels: Tensor, paths: Sequence[str]
) -> dict[str, numpy.ndarray]:
    """Return the arrays of every image that reports read, by name.

    Args:
        prediction: of N images; labels: (N,); paths: N strings.

    Returns:
        ``image`` (N,) folder and file name, ``label`` (N,), ``top`` and ``top_probability`` (N, 5
        or K) the most probable classes, and each uncertainty (N,) by its name. With templates also
        ``vote`` and ``vote_probability`` (M, N), each template's answer, and ``vote_weight`` (M,);
        with evidence ``vote_vacuity`` (M, N); ``unfamiliar`` (N,) where it is known.
    """
    probability, top = prediction.probability.topk(min(TOP, prediction.probability.shape[1]), dim=1)
    arrays = {
        "label": labels,
        "top": top,
        "top_probability": probability,
        **prediction.uncertainties(),
    }
    if prediction.votes is not None:
        arrays["vote_probability"], arrays["vote"] = prediction.votes.max(dim=2)
    if prediction.vote_vacuity is not None:
        arrays["vote_vacuity"] = prediction.vote_vacuity
    if prediction.vote_weight is not None:
        arrays["vote_weight"] = prediction.vote_weight
    if prediction.unfamiliar is not None:
        arrays["unfamiliar"] = prediction.unfamiliar
    return {
        "image": numpy.array([image_name(path) for path in paths]),
        **{name: value.numpy() for name, value in arrays.items()},
    }

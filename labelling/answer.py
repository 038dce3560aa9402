"""A classifier's answers to pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import DTypeLike

from trainers.common.record_file import UNFAMILIAR
from trainers.evaluation.figures import voters
from trainers.evaluation.multi_label import likelihood
from trainers.evaluation.prediction import Prediction

from .limits import LabelLimits
from .readers.rows import BETWEEN
from .rules import LabelRule

if TYPE_CHECKING:
    import pandas


@dataclass
class Answers:
    """A classifier's answers to N images over K classes; numpy arrays in fp32.

    Attributes:
        classnames: the K names.
        images: N file names, as they were given; None for an image that came without one.
        labels: N names, each image's most probable class; of a multi-label run N lists of the names that
            are given, the most probable first.
        probabilities: (N, K), rows sum to one; of a multi-label run each label's own.
        uncertainty: (N,) in [0, 1]: 1 − the largest probability, which ranks mistakes better than vacuity
            (docs/uncertainty.md); of a multi-label run how probable it is that any label is wrong or
            missing, if labels were independent.
        doubtful: N, whether an answer is too uncertain for a label, or its picture too unlike the run's; None
            where nothing says it.
        unfamiliar: (N,) in (0, 1], p-values: the share of the training pictures that are at least as far from
            the others as this picture is, so that 1 in 20 of the run's own are below 0.05; None where the run
            has kept none (``familiar.py``).
        thresholds: (K,), of a multi-label run: the least probability of a label that is given, infinite
            where it never is; None of one label per image.
        vacuity: (N,) in (0, 1], the uncertainty mass of the fused opinion; None where the method
            learns no evidence.
        conflict: (N,) in [0, 1), the mass of the templates' joint belief on different classes; None
            likewise.
        voters: M names of the templates whose votes are fused; none where the method has no
            templates to fuse.
        votes: (N, M, K), the probabilities of each vote alone; None where there are none.
        vote_weights: (M,), the share that each has in the answers; they sum to one. None likewise.
        vote_vacuity: (N, M) in (0, 1], the uncertainty mass of each vote's own opinion, which counts
            the less the larger it is; None where the method learns no evidence.
        note: in which other way than the trained classes alone these are answered; "" where in none.
    """

    classnames: list[str]
    images: list[str | None]
    labels: list[Any]
    probabilities: numpy.ndarray
    uncertainty: numpy.ndarray
    doubtful: list[bool | None]
    unfamiliar: numpy.ndarray | None = None
    thresholds: numpy.ndarray | None = None
    vacuity: numpy.ndarray | None = None
    conflict: numpy.ndarray | None = None
    voters: Sequence[str] = ()
    votes: numpy.ndarray | None = None
    vote_weights: numpy.ndarray | None = None
    vote_vacuity: numpy.ndarray | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> numpy.ndarray:
        """The labels (N,), as scikit-learn's functions take them; of a multi-label run whether each label
        is given (N, K)."""
        if self.thresholds is None:
            return numpy.array(self.labels, dtype)
        shape = len(self.labels), len(self.classnames)
        given = numpy.zeros(shape, bool if dtype is None else dtype)
        for number, own in enumerate(self.labels):
            given[number] = [name in own for name in self.classnames]
        return given

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``DataFrame``, one row per image: image, label (of a multi-label run ``dog;ball``), of one label
        its probability, uncertainty, where there are any unfamiliar, vacuity and conflict, ``template_1`` …, the class
        that each vote is for, and ``template_1_vacuity`` …, how much each leaves open; of a multi-label run
        a column ``probability_<label>`` per label.
        """
        import pandas

        columns: dict[str, Any] = {"image": self.images}
        familiarity = {} if self.unfamiliar is None else {"unfamiliar": self.unfamiliar}
        if self.thresholds is not None:
            columns["label"] = [BETWEEN.join(names) for names in self.labels]
            columns["uncertainty"] = self.uncertainty
            columns |= familiarity
            for name, probability in zip(self.classnames, self.probabilities.T):
                columns[f"probability_{name}"] = probability
            return pandas.DataFrame(columns)
        columns["label"] = self.labels
        columns["probability"] = self.probabilities.max(axis=1)
        columns["uncertainty"] = self.uncertainty
        columns |= familiarity
        if self.vacuity is not None:
            columns.update(vacuity=self.vacuity, conflict=self.conflict)
        names = [voter.replace(" ", "_") for voter in self.voters]
        if self.votes is not None:
            for name, vote in zip(names, self.votes.argmax(axis=2).T):
                columns[name] = [self.classnames[label] for label in vote]
        if self.vote_vacuity is not None:
            for name, vacuity in zip(names, self.vote_vacuity.T):
                columns[f"{name}_vacuity"] = vacuity
        return pandas.DataFrame(columns)


def without_unfamiliar(answers: Answers) -> Answers:
    """Return the answers with those to pictures unlike the run's as doubtful ones, too."""
    assert answers.unfamiliar is not None
    is_odd = (answers.unfamiliar <= UNFAMILIAR).tolist()
    doubtful: list[bool | None] = [bool(own) or odd for own, odd in zip(answers.doubtful, is_odd)]
    return replace(answers, doubtful=doubtful)


def single_label_answers(
    answer: Prediction,
    classnames: list[str],
    names: list[str | None],
    rule: LabelRule | None,
    note: str,
) -> Answers:
    """Return a ``Prediction`` of N images, with their names, as ``Answers`` of one label each."""
    values = {name: value.numpy() for name, value in answer.known().items()}
    votes = values.get("votes")  # (M, N, K)
    vacuities = values.get("vote_vacuity")  # (M, N)
    uncertainty = answer.uncertainties()["max_probability"].numpy()
    doubtful: list[bool | None] = [None] * len(uncertainty)
    if rule is not None and not isinstance(rule, LabelLimits):
        doubtful = [rule.rejects(one) for one in uncertainty.tolist()]
    return Answers(
        classnames=classnames,
        images=names,
        labels=[classnames[label] for label in answer.probability.argmax(dim=1).tolist()],
        probabilities=values["probability"],
        uncertainty=uncertainty,
        doubtful=doubtful,
        unfamiliar=values.get("unfamiliar"),
        vacuity=values.get("vacuity"),
        conflict=values.get("conflict"),
        voters=() if votes is None else voters(len(votes)),
        votes=None if votes is None else votes.swapaxes(0, 1),
        vote_weights=values.get("vote_weight"),
        vote_vacuity=None if vacuities is None else vacuities.T,
        note=note,
    )


def multi_label_answers(
    answer: Prediction, classnames: list[str], names: list[str | None], rule: LabelLimits, note: str
) -> Answers:
    """Return a ``Prediction`` of N images, with their names, as ``Answers`` of any number of labels each."""
    probability = answer.probability.numpy()
    given = rule.given(probability)
    labels = []
    for own, has in zip(probability, given):
        order = numpy.argsort(-own, kind="stable")
        labels.append([classnames[label] for label in order if has[label]])
    return Answers(
        classnames=classnames,
        images=names,
        labels=labels,
        probabilities=probability,
        uncertainty=(1 - likelihood(given, probability)).astype(probability.dtype),
        doubtful=[None] * len(probability),
        unfamiliar=None if answer.unfamiliar is None else answer.unfamiliar.numpy(),
        thresholds=numpy.broadcast_to(rule.thresholds, len(classnames)),
        note=note,
    )

"""Whether accuracy on pictures kept aside falls where pictures are added to a folder.

    python -m experiments.more_pictures

Each draw puts OpenMoji's drawings of its fourteen largest classes into an order. The first 60, 96, 104, … of it are
a folder, the last 100 are kept aside, and no two of these look alike. A run's trainer is fitted as a run
does it: in folds, and then to all. By hand: scikit-learn's LogisticRegressionCV on the same features of
all pictures.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy
import torch
from pandas import DataFrame
from scipy.stats import binomtest
from tabulate import tabulate
from torch import Tensor

from experiments.promises import answers_to, classifier_of, features_of, fit_as_runs_do
from labelling.task import SINGLE_LABEL
from tests.bursts import codes, drawn, groups
from trainers.learners.features import FeatureMethod

CLASSES = 14
SIZES = (60, 96, 104, 150, 200, 300, 400)  # below and above 100, where folders were once divided
ASIDE = 100
RISK = 0.05  # of a fall that is taken for one and is none, two-sided
HAND = "by hand"


def answers_of_a_run(
    method: FeatureMethod, features: Tensor, labels: Tensor, asked: Tensor
) -> Tensor:
    """The answers (L,) to asked features (L, E) of what a run fits to features (N, E) with labels (N,)."""
    fit_as_runs_do(method, features, labels)
    return answers_to(method, asked).probability.argmax(dim=1)


def answers_by_hand(features: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """The same by the lines that one would write."""
    from sklearn.linear_model import LogisticRegressionCV

    classifier = LogisticRegressionCV(Cs=10, cv=3, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that will change
        classifier.fit(features.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict(asked.numpy()))


def falls(before: numpy.ndarray, after: numpy.ndarray) -> bool:
    """Whether right answers (L,) bool to the same pictures are fewer after than before, by McNemar's exact
    test."""
    lost = int((before & ~after).sum())
    won = int((after & ~before).sum())
    return lost > won and binomtest(lost, lost + won).pvalue <= RISK


def measured(trainer: str, draws: int) -> list[dict[str, object]]:
    """A row for each number of pictures, of the trainer and by hand."""
    names = [name for name, _ in Counter(name for _, name in codes()).most_common(CLASSES)]
    pictures = drawn(code for code in codes() if code[1] in names)
    _, first = numpy.unique(groups(*zip(*pictures)), return_index=True)
    pictures = [pictures[place] for place in first]
    assert len(pictures) >= SIZES[-1] + ASIDE, "no picture is trained on and kept aside"
    method = classifier_of(trainer, names)
    features = features_of(method, [picture for picture, _ in pictures])
    labels = torch.tensor([names.index(name) for _, name in pictures])
    right: dict[tuple[str, int], list[numpy.ndarray]] = {}
    for seed in range(draws):
        order = torch.tensor(random.Random(seed).sample(range(len(labels)), len(labels)))
        aside = order[-ASIDE:]
        for size in SIZES:
            own = order[:size]
            known = features[own], labels[own], features[aside]
            ways = {trainer: answers_of_a_run(method, *known), HAND: answers_by_hand(*known)}
            for way, answers in ways.items():
                right.setdefault((way, size), []).append((answers == labels[aside]).numpy())
    rows: list[dict[str, object]] = []
    for way in (trainer, HAND):
        for before, size in pairwise((0, *SIZES)):
            own_right = right[way, size]
            row: dict[str, object] = {
                "fitted": way,
                "pictures": size,
                "right, %": 100 * numpy.mean(own_right),
            }
            if before:
                steps = [*zip(right[way, before], own_right)]
                gains = [100 * (after.mean() - earlier.mean()) for earlier, after in steps]
                row["more than before"] = (
                    f"{numpy.mean(gains):.1f} ± {numpy.std(gains, ddof=1):.1f}"
                )
                row["falls"] = f"{sum(falls(*step) for step in steps)} of {draws}"
            rows.append(row)
    return rows


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    usual = SINGLE_LABEL.trainer
    parser.add_argument("--trainer", default=usual, help=f"of image features ({usual})")
    parser.add_argument("--draws", type=int, default=40, help="folders (40)")
    args = parser.parse_args(arguments)
    rows = measured(args.trainer, args.draws)
    print(tabulate(DataFrame(rows), headers="keys", showindex=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()

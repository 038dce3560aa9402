"""The list of wrong labels beside cleanlab's, on folders where a tenth of the pictures has a wrong label.

    python -m experiments.wrong_labels --results experiments/wrong_labels.jsonl
    python -m experiments.wrong_labels --results experiments/wrong_labels.jsonl --show

In each folder a label of a tenth of the pictures is swapped for another. What the usual trainer answers out
of fold on the tiny CLIP is given to both: ``report/review.py`` and, by hand, cleanlab's
``find_label_issues``. The same folder without a wrong label says how many are listed for nothing.
Seeds 1 to 5 have chosen how far the list goes; the table is of others.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy
import torch
import torch.nn.functional as F
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_label_issues as find_in_sets
from numpy.random import Generator
from pandas import DataFrame
from tabulate import tabulate
from torch import Tensor

from experiments.promises import classifier_of, features_of, fit_as_runs_do
from experiments.result_lines import keep_lines, parser_of
from experiments.trust_lab import folders
from experiments.trust_lab.folders import Folder
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.parts import stratified_folds
from labelling.task import FOLDS, MULTI_LABEL_TASK
from report.review import WrongLabels, wrong_labels, wrong_multi_labels
from trainers.binaryprobe import BinaryProbeMethod
from trainers.common.setting import node_of
from trainers.prompting.backbone import load_backbone

SHARE = 0.1  # of the pictures, which have a wrong label
PARTS = 4  # of each photograph, in which it is seen: the classes of "views"
VIEWS = 28  # of each part
SEEDS = (6, 7, 8)


def views(draws: Generator) -> Folder:
    """Views of the quarters of two photographs: eight classes."""
    pictures = []
    labels = []
    for place, photograph in enumerate(folders.photographs()):
        for quarter in range(PARTS):
            labels += VIEWS * [PARTS * place + quarter]
            for _ in range(VIEWS):
                side = int(draws.integers(90, 150))
                left = int(draws.integers(photograph.width // 2 - side))
                top = int(draws.integers(photograph.height // 2 - side))
                left += photograph.width // 2 * (quarter % 2)
                top += photograph.height // 2 * (quarter // 2)
                size = (folders.SIZE, folders.SIZE)
                pictures.append(photograph.resize(size, box=(left, top, left + side, top + side)))
    names = [f"part {number}" for number in range(2 * PARTS)]
    known = folders.one_label(pictures, labels)
    return Folder("views", names, known, known)


KINDS: dict[str, Callable[[Generator], Folder]] = {
    "8 classes": partial(folders.of_emojis, "8 classes", [14] * 8, folders.plain),
    "30 classes": partial(folders.of_emojis, "30 classes", [20] * 30, folders.plain),
    "views": views,
}
for known in ("digits", "shapes", "photographs", "shapes, several", "emojis, several"):
    KINDS[known] = folders.KINDS[known]


def swapped(truth: numpy.ndarray, draws: Generator) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Labels (N, K) of which one is another in a tenth of the pictures, and which pictures (N,) these are."""
    given = truth.copy()
    is_wrong = numpy.zeros(len(truth), bool)
    is_wrong[draws.permutation(len(truth))[: round(SHARE * len(truth))]] = True
    for place in numpy.flatnonzero(is_wrong):
        given[place, draws.choice(numpy.flatnonzero(truth[place]))] = False
        given[place, draws.choice(numpy.flatnonzero(~truth[place]))] = True
    return given, is_wrong


@torch.no_grad()
def out_of_fold(folder: Folder, features: Tensor, truth: numpy.ndarray) -> numpy.ndarray:
    """Probabilities (N, K) of labels (N, K) that folds have not seen."""
    groups = folder.known.groups
    if not folder.is_several:
        method = classifier_of("LinearProbe", folder.names)
        labels = torch.from_numpy(truth.argmax(axis=1))
        answers = fit_as_runs_do(method, features, labels, torch.from_numpy(groups))
        return answers.probability.numpy()
    fold = torch.from_numpy(stratified_folds(truth, groups, FOLDS, 1))
    known = FeatureSet(features[None], features, torch.from_numpy(truth), fold)
    answers = cross_fit(binary_probe_of(folder.names), MULTI_LABEL_TASK, known)
    return answers.probability.numpy()


def binary_probe_of(names: Sequence[str]) -> BinaryProbeMethod:
    """A ``BinaryProbe`` on the tiny CLIP, as a run on multi-label pictures has it."""
    node = node_of(BinaryProbeMethod.declared)
    node.PREC = "fp32"
    return BinaryProbeMethod(node, names, load_backbone("tiny")).eval()


def ours(probability: numpy.ndarray, truth: numpy.ndarray, is_several: bool) -> WrongLabels:
    if is_several:
        return wrong_multi_labels(probability, truth)
    return wrong_labels(probability, truth.argmax(axis=1))


def by_cleanlab(
    probability: numpy.ndarray, truth: numpy.ndarray, is_several: bool
) -> numpy.ndarray:
    """Indices of what cleanlab lists, by its usual rule."""
    ranked = {"return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    found: numpy.ndarray
    if is_several:
        sets = [numpy.flatnonzero(own).tolist() for own in truth]
        found = find_in_sets(sets, probability, **ranked)
    else:
        found = find_label_issues(truth.argmax(axis=1), probability, **ranked)
    return found


def judged(kind: str, seed: int) -> dict[str, object]:
    """What both list of a folder with wrong labels, how many of these are wrong, and what they list of the
    same folder without."""
    draws = numpy.random.default_rng([seed, [*KINDS].index(kind)])
    folder = KINDS[kind](draws)
    truth = folder.known.truth
    given, is_wrong = swapped(truth, draws)
    features = features_of(classifier_of("LinearProbe", folder.names), folder.known.pictures)
    features = F.normalize(features.float(), dim=-1)
    answers = out_of_fold(folder, features, given), given, folder.is_several
    found = ours(*answers)
    theirs = by_cleanlab(*answers)
    as_long = numpy.argsort(-found.probability, kind="stable")[: len(theirs)]
    clean = out_of_fold(folder, features, truth), truth, folder.is_several
    return {
        "kind": kind,
        "seed": seed,
        "several": folder.is_several,
        "pictures": len(truth),
        "wrong": int(is_wrong.sum()),
        "listed": len(found.listed),
        "found": int(is_wrong[found.listed].sum()),
        "expected": round(found.precision * len(found.listed), 1),
        "cleanlab listed": len(theirs),
        "cleanlab found": int(is_wrong[theirs].sum()),
        "found in as many": int(is_wrong[as_long].sum()),
        "clean listed": len(ours(*clean).listed),
        "clean cleanlab listed": len(by_cleanlab(*clean)),
    }


def table(rows: DataFrame) -> str:
    """A row per kind of folders, sums over seeds, and one of all of a task."""
    lines = []
    for is_several, of_task in rows.groupby("several", sort=False):
        for kind, own in of_task.groupby("kind", sort=False):
            lines.append(in_words(str(kind), own))
        name = "all, multi-label" if is_several else "all, single-label"
        lines.append(in_words(name, of_task))
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def in_words(name: str, rows: DataFrame) -> dict[str, str]:
    sums = rows.drop(columns=["kind", "seed", "several"]).sum()
    counts = {column: f"{value:.0f}" for column, value in sums.items()}
    share = 100 * rows["found"] / rows["wrong"]
    theirs = 100 * rows["cleanlab found"] / rows["wrong"]
    return {
        "folders": name,
        "wrong": f"{counts['wrong']} of {counts['pictures']}",
        "found": f"{counts['found']} of {counts['listed']} listed ({counts['expected']} expected)",
        "share, %": f"{share.mean():.0f} ± {share.std():.0f}",
        "cleanlab": f"{counts['cleanlab found']} of {counts['cleanlab listed']}",
        "its share, %": f"{theirs.mean():.0f} ± {theirs.std():.0f}",
        "ours in a list as long": counts["found in as many"],
        "listed where none is wrong, %": f"{100 * sums['clean listed'] / sums['pictures']:.1f}",
        "cleanlab there, %": f"{100 * sums['clean cleanlab listed'] / sums['pictures']:.1f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser_of(__doc__, SEEDS).parse_args(arguments)
    parts = ((kind, seed) for seed, kind in product(args.seeds, KINDS))
    print(table(keep_lines(args, "kind", parts, lambda kind, seed: [judged(kind, seed)])))


if __name__ == "__main__":
    main()

"""How often a line on shift is said of pictures that come as a run's own came.

    python -m experiments.trust_lab.false_lines --results experiments/trust_lab/false_lines.jsonl
    python -m experiments.trust_lab.false_lines --results experiments/trust_lab/false_lines.jsonl --show

Of each kind of ``folders`` one folder per seed is drawn, and its pictures are encoded once. ``SPLITS`` times half of
the groups, by chance, are trained on, and the others' pictures come in batches of ``ASKED``. Batches of one split
share their training pictures, so that the interval counts splits. Seeds 6 to 9 have chosen nothing.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

from collections.abc import Iterator, Sequence
from itertools import product

import numpy
import torch
from pandas import DataFrame
from tabulate import tabulate
from torch import Tensor

from experiments.promises import answers_to, classifier_of, features_of, pixels_of
from experiments.result_lines import keep_lines, parser_of
from experiments.trust_lab.folders import KINDS, draw
from experiments.trust_lab.measure import ASKED
from experiments.wrong_labels import binary_probe_of
from labelling.appearance import looks_of
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.familiar import fit_familiar
from labelling.parts import stratified_folds
from labelling.shift import FEWEST_PICTURES, higher_ranked, unfamiliar
from labelling.task import FOLDS, MANY_FOLDS, Task, task_of
from trainers.binaryprobe import BinaryProbeMethod
from trainers.data.images import one_of_each
from trainers.evaluation.figures import wilson
from trainers.evaluation.prediction import Prediction
from trainers.learners.features import FeatureMethod

SPLITS = 12  # of a folder
FEWEST = 3  # pictures with each label, in the half that is trained on


def halves(truth: numpy.ndarray, groups: numpy.ndarray, seed: int) -> Iterator[numpy.ndarray]:
    """Yield which pictures (N,) are trained on, of labels (N, K) and groups (N,)."""
    names = numpy.unique(groups)
    draws = numpy.random.default_rng(seed)
    found = 0
    while found < SPLITS:
        is_known = numpy.isin(groups, draws.permutation(names)[: len(names) // 2])
        if (truth[is_known].sum(axis=0) >= FEWEST).all():
            found += 1
            yield is_known


def uncertainty_of(task: Task, method: FeatureMethod, answer: Prediction) -> numpy.ndarray:
    """Return how uncertain answers (N,) are, as the product has it."""
    return task.answered(answer, method, [None] * len(answer.probability), None).uncertainty


def fitted(
    task: Task,
    method: FeatureMethod,
    features: Tensor,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
) -> Prediction:
    """Fit a classifier to pictures of labels (N, K); return the answers to them out of fold."""
    fold = stratified_folds(truth, groups, FOLDS if task.multi_label else MANY_FOLDS, 1)
    target = torch.from_numpy(truth if task.multi_label else truth.argmax(axis=1))
    known = FeatureSet(features[None], features, target, torch.from_numpy(fold))
    return cross_fit(method, task, known)


def answered(method: FeatureMethod, features: Tensor) -> Prediction:
    """Return what a fitted classifier answers to other pictures, of features (L, E)."""
    if isinstance(method, BinaryProbeMethod):
        return method.predict(method.learner(features, method.texts(features))[None])
    return answers_to(method, features)


@torch.no_grad()
def judged(kind: str, seed: int) -> Iterator[dict[str, object]]:
    """Yield whether each of both tests shows a shift, for each batch of each split of a folder."""
    folder = draw(kind, seed)
    task = task_of(folder.is_several)
    pictures = [*folder.known.pictures, *folder.aside.pictures]
    truth = numpy.concatenate([folder.known.truth, folder.aside.truth])
    later = folder.aside.groups + folder.known.groups.max() + 1
    groups = numpy.concatenate([folder.known.groups, later])
    method: FeatureMethod = classifier_of("LinearProbe", folder.names)
    if task.multi_label:
        method = binary_probe_of(folder.names)
    features = features_of(method, pictures)
    looks = looks_of(pixels_of(method, pictures))
    for split, is_known in enumerate(halves(truth, groups, seed)):
        others = numpy.random.default_rng([seed, split]).permutation(numpy.flatnonzero(~is_known))
        own_groups = groups[is_known]
        answers = fitted(task, method, features[is_known], truth[is_known], own_groups)
        familiar = fit_familiar(features[is_known].numpy(), looks[is_known], own_groups)
        own_values = uncertainty_of(task, method, answers), -familiar.own_p_values()
        own = numpy.column_stack(own_values)[one_of_each(own_groups.tolist())]
        for asked in numpy.split(others, range(ASKED, len(others), ASKED)):
            p_values = familiar.p_values(features[asked].numpy(), looks[asked])
            uncertainty = uncertainty_of(task, method, answered(method, features[asked]))
            unlike = unfamiliar(p_values, familiar.groups)
            higher = higher_ranked(numpy.column_stack([uncertainty, -p_values]), own)
            if len(asked) >= FEWEST_PICTURES:
                yield {
                    "kind": kind,
                    "seed": seed,
                    "split": split,
                    "unlike": unlike.is_shown,
                    "higher ranked": higher.is_shown,
                }


def table(rows: DataFrame) -> str:
    """Return a row per kind of folders, and one of all: in how many batches a line was said."""
    kinds = [(str(kind), own) for kind, own in rows.groupby("kind", sort=False)]
    lines = []
    for name, own in [*kinds, ("all", rows)]:
        said = own["unlike"] | own["higher ranked"]
        splits = len(own.drop_duplicates(["kind", "seed", "split"]))
        low, high = wilson(said.mean() * splits, splits)
        lines.append(
            {
                "folders": name,
                "splits": splits,
                "batches": len(own),
                "unlike": own["unlike"].sum(),
                "higher ranked": own["higher ranked"].sum(),
                "a line": said.sum(),
                "share, % (95 % interval)": f"{100 * said.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})",
            }
        )
    return tabulate(lines, headers="keys", tablefmt="github")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser_of(__doc__, seeds=(6, 7, 8, 9)).parse_args(arguments)
    parts = ((kind, seed) for seed, kind in product(args.seeds, KINDS))
    print(table(keep_lines(args, "kind", parts, judged)))


if __name__ == "__main__":
    main()

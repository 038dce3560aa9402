"""Do factors that have nothing to do with the class pull the answers? Tables on the protocol ``factors``.

    python -m analysis.factors output/factors [--format text|markdown|csv|latex|html] [--output FILE]

Everything in percent, mean ± sample standard deviation over seeds; what the factors are: datasets/drawn/factors.py.

**A factor that goes with the class.** Accuracy on the same emojis where the factor has the class's own level (aligned), any level
(independent), another class's level (reversed); the *drop*, aligned − reversed; *flipped*, the share of emojis whose answer is not the
same aligned and reversed; and *worst group*, the lowest accuracy of a group (Sagawa et al., 2020, "Distributionally Robust Neural Networks
for Group Shifts", where a group is a class with an attribute's level). There are too few test images for classes × levels: a group
here is a level of the factor, shown to classes that it belongs to or to others, over the aligned and reversed images; as long as one has
fewer than 10 images, the two smallest are one. Zero-shot CLIP has seen no correlation: its drop is what the pairing of classes and
levels alone does.

**What moves the answers.** The information flow from each factor to the answer (Ay and Polani, 2008, "Information Flows in Causal
Systems", all else imposed): an emoji's picture is composed with every level of the factor, all else as it is in the independent version; the mutual
information between the level, set uniformly, and the answer is, as the picture decides the answer, the entropy of the answers. Its mean
over emojis, as a share of that of the levels, ln 5 nats: 0 where the factor moves no answer, 100 where every level has another one.
It is over every second test image of each run's classes.

**What the image features hold.** Accuracy of a linear probe (Alain and Bengio, 2017, "Understanding Intermediate Layers Using Linear
Classifier Probes"; logistic regression on standardised features, 5-fold cross-validation) that reads a factor, or the class, out of
each template's features of the independent test images; *chance* is the share of the most frequent answer. Prompts in the text alone leave
the features as zero-shot CLIP has them.

The last two need the trained prompts: what they found is kept in the run's folder, in factors.json.
"""
import argparse
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
from PIL.Image import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from datasets.drawn.factors import FACTORS, LEVELS, OpenMojiFactors, code_of, compose, levels_of, own_level
from results.kept import read_kept, write_kept
from results.render import FORMATS, render_all, write_out
from results.rows import HEADS, Key, Row, Table
from results.runs import PREDICTIONS, Arrays, is_right, read_answers
from results.table import FACTOR_PARTS, place, read_records
from trainers.classifier.prompted import PromptedClassifier
from trainers.common.errors import UserError, exit_code
from trainers.common.record_file import Record

log = logging.getLogger(__name__)

FORMAT = 1  # of factors.json; to be raised when a field changes its meaning
FILE = "factors.json"
OBJECT = "object"  # the probe for the class
GROUP = 10  # images that a group has at least
FOLDS = 5
STRENGTH = 0.1  # C of the probes: features are many, images few
ANSWER_COLUMNS = ("worst group", "flipped")


Measures = dict[str, Any]  # what ``measure`` finds


# ---- measures on answers ----

def worst_group_accuracy(right: numpy.ndarray, level: numpy.ndarray, own: numpy.ndarray) -> float:
    """The lowest accuracy, in percent, of the groups described above.

    Args:
        right: (N,) bool; level: (N,) the factor's, as shown; own: (N,) bool, whether it is that of the image's class.
    """
    members = Counter(zip(level.tolist(), own.tolist()))
    groups = [right[(level == shown) & (own == fits)] for shown, fits in sorted(members)]
    while len(groups) > 1 and min(map(len, groups)) < GROUP:
        first, second, *groups = sorted(groups, key=len)
        groups.append(numpy.concatenate([first, second]))
    return 100 * min(group.mean() for group in groups)


def information_flow(answers: numpy.ndarray) -> float:
    """Information flow, in nats, from a factor to the answer: the mean entropy of an emoji's answers over the factor's levels.

    Args:
        answers: (N, L), the class that is answered for each of N emojis under each of L levels.

    Returns:
        from 0 to ln L.
    """
    share = (answers[:, :, None] == answers[:, None]).mean(axis=2)  # (N, L): how many of the levels have that level's answer
    return float(-numpy.log(share).mean())


def probe_accuracy(features: numpy.ndarray, targets: Sequence[int]) -> float:
    """Accuracy of a cross-validated linear probe, in percent.

    Args:
        features: (N, E); targets: (N,), of which each value occurs at least ``FOLDS`` times.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return float(100 * cross_val_score(probe, features, targets, cv=folds).mean())


def chance(targets: Sequence[Hashable]) -> float:
    """Accuracy, in percent, of the one answer that is right most often."""
    return 100 * max(Counter(targets).values()) / len(targets)


def measured_on_answers(aligned: Arrays, reversed_: Arrays, factor: str) -> dict[str, float]:
    """``worst group`` and ``flipped`` of a run, in percent.

    Args:
        aligned, reversed_: arrays of the run's answers to the two versions, see ``trainers.evaluation.prediction.per_image``.
        factor: the correlated one.

    Raises:
        UserError: they are answers to different emojis.
    """
    codes = [[os.path.splitext(os.path.basename(name))[0] for name in answers["image"]] for answers in (aligned, reversed_)]
    if codes[0] != codes[1]:
        raise UserError("the aligned and the reversed test have other emojis, or in another order: run them again")
    levels = [[levels_of(code, label, "test", version, factor)[factor] for code, label in zip(codes[0], answers["label"].tolist())]
              for version, answers in (("aligned", aligned), ("reversed", reversed_))]
    level = numpy.concatenate(levels)  # (2N,)
    right = numpy.concatenate([is_right(aligned), is_right(reversed_)])
    own = level == own_level(numpy.concatenate([aligned["label"], reversed_["label"]]))
    return {"worst group": worst_group_accuracy(right, level, own),
            "flipped": float(100 * (aligned["top"][:, 0] != reversed_["top"][:, 0]).mean())}


# ---- measures on the trained prompts ----

@lru_cache(maxsize=1)
def test_emojis(classes: int) -> list[tuple[str, int, dict[str, int]]]:
    """(hexcode, label, levels of the independent version) of the test emojis of the first ``classes`` classes."""
    return [(code_of(image), image.label, levels_of(code_of(image), image.label, "test"))
            for image in OpenMojiFactors.list_images("")[2] if image.label < classes]


@lru_cache(maxsize=1)
def interventions(classes: int) -> tuple[list[Image], numpy.ndarray]:
    """Pictures of every second test emoji under every level of each factor.

    Returns:
        list of pictures, each once, and (F, N, L) indices into it, in the order of ``FACTORS``.
    """
    found: dict[tuple[Any, ...], int] = {}
    pictures: list[Image] = []
    indices = numpy.empty((len(FACTORS), len(test_emojis(classes)[::2]), LEVELS), int)
    for number, (code, _, levels) in enumerate(test_emojis(classes)[::2]):
        for factor, level in numpy.ndindex(len(FACTORS), LEVELS):
            changed = {**levels, FACTORS[factor]: level}
            key = (code, *changed.values())
            if key not in found:
                found[key] = len(pictures)
                pictures.append(compose(code, changed))
            indices[factor, number, level] = found[key]
    return pictures, indices


def measure(classifier: PromptedClassifier) -> Measures:
    """What a trained run's prompts make of the factors.

    Returns:
        dict of ``flow``: factor → nats; ``probes``: for each template, factor or ``object`` → percent; ``chance``: factor or ``object`` →
        percent.
    """
    classes = len(classifier.classnames)
    pictures, indices = interventions(classes)
    answers = classifier.predict(pictures).probabilities.argmax(axis=1)[indices]  # (F, N, L)
    emojis = test_emojis(classes)
    targets = {**{factor: [levels[factor] for _, _, levels in emojis] for factor in FACTORS}, OBJECT: [label for _, label, _ in emojis]}
    features = classifier.embed_image([compose(code, levels) for code, _, levels in emojis])  # (N, M or 1, E)
    return {"flow": {factor: information_flow(moved) for factor, moved in zip(FACTORS, answers)},
            "probes": [{name: probe_accuracy(template, values) for name, values in targets.items()}
                       for template in features.swapaxes(0, 1)],
            "chance": {name: chance(values) for name, values in targets.items()}}


def measures_of(folder: str, record: Record, made: dict[tuple[str | None, ...], Measures]) -> Measures:
    """``measure`` of a run, read from its folder, or made and written there.

    Args:
        made: measures by prompts, to look into and add to: a trainer that learns nothing says the same for every seed and factor.
    """
    origin = {key: record[key] for key in ("trainer", "prompts_hash", "backbone_hash")}
    key = tuple(origin.values())
    kept = read_kept(Path(folder) / FILE, FORMAT, origin)
    if key not in made:
        made[key] = kept or measure(PromptedClassifier.load(folder))
    if kept is None:
        write_kept(Path(folder) / FILE, FORMAT, origin, made[key])
    return made[key]


# ---- tables ----

def find(folder: str | Path) -> dict[Key, dict[int, dict[str, tuple[str, Record]]]]:
    """key of a row → seed → column (``aligned`` …) → (folder of the run, its record).

    Raises:
        UserError: there is no run of the protocol, or a record can't be read.
    """
    found: dict[Key, dict[int, dict[str, tuple[str, Record]]]] = {}
    for part in FACTOR_PARTS:
        root = Path(folder) / part
        for path, record in read_records(root):
            placed = place(part, path, record)
            if placed is not None:
                found.setdefault(placed[1], {}).setdefault(record["seed"], {})[FACTOR_PARTS[part]] = (str((root / path).parent), record)
    if not found:
        raise UserError(f"no run of the protocol factors below {folder}: run.py --protocol factors makes them")
    whole = {key: {seed: runs for seed, runs in seeds.items() if len(runs) == len(FACTOR_PARTS)} for key, seeds in found.items()}
    for key, seeds in found.items():
        partly = sorted(seeds.keys() - whole[key].keys())
        if partly:
            log.warning("left out: %s seed(s) %s, of which only a part is done", " ".join(map(str, key)), ", ".join(map(str, partly)))
    return {key: seeds for key, seeds in whole.items() if seeds}


def answers_of(folder: str | Path) -> Arrays:
    """
    Raises:
        UserError: the run has none, or they can't be read.
    """
    found = read_answers(Path(folder) / PREDICTIONS)
    if found is None:
        raise UserError(f"{folder} lacks {PREDICTIONS}: run it again with this version")
    return found


def add(rows: dict[Key, Row], key: Key, values: Mapping[str, float], seed: int) -> None:
    """Puts a seed's values, by column, into the row of that key, which is made where there is none."""
    row = rows.setdefault(key, Row(key))
    for column, value in values.items():
        row.values.setdefault(column, {})[seed] = value


def collect(folder: str | Path) -> list[Table]:
    """The three tables described above.

    Raises:
        UserError: no run of the protocol lies there, or one can't be read or loaded.
    """
    found = find(folder)
    answered: dict[Key, Row] = {}
    flows: dict[Key, Row] = {}
    probes: dict[Key, Row] = {}
    made: dict[tuple[str | None, ...], Measures] = {}
    with tqdm(total=sum(map(len, found.values())), unit="run", dynamic_ncols=True, disable=None) as bar:
        for key, seeds in sorted(found.items()):
            for seed, runs in sorted(seeds.items()):
                factor = runs["aligned"][1]["config"]["DATASET"]["FACTORS"]["CORRELATED"]
                accuracy = {column: record["metrics"]["test"]["accuracy"] for column, (_, record) in runs.items()}
                answers = measured_on_answers(answers_of(runs["aligned"][0]), answers_of(runs["reversed"][0]), factor)
                add(answered, key, {**accuracy, **answers}, seed)
                measures = measures_of(*runs["aligned"], made)
                add(flows, key, {name: 100 * value / math.log(LEVELS) for name, value in measures["flow"].items()}, seed)
                for number, template in enumerate(measures["probes"], 1):
                    add(probes, (*key, f"{number} of {len(measures['probes'])}"), template, seed)
                add(probes, (key[0], key[1], "chance", "", ""), measures["chance"], seed)
                bar.update()
    columns = [*FACTOR_PARTS.values(), *ANSWER_COLUMNS]
    return [Table("A factor that goes with the class", list(answered.values()), columns, {"drop": lambda values: values[0] - values[2]}),
            Table("What moves the answers: information flow", list(flows.values()), list(FACTORS)),
            Table("What the image features hold: linear probes", list(probes.values()), [*FACTORS, OBJECT], heads=(*HEADS, "template"))]


def run(args: argparse.Namespace) -> None:
    write_out(render_all(collect(args.folder), args.format), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="output/factors, or where else the protocol's runs lie")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", help="write to this file instead of standard output")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())

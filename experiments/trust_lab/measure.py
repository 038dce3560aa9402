"""What a run says of pictures that it can't know: ten kinds of folders, each trained on as a user does, and
asked for pictures kept aside, odd ones, another data set's, and those of changed cameras.

    python -m experiments.trust_lab.measure --results experiments/trust_lab/trust.jsonl
    python -m experiments.trust_lab.measure --results experiments/trust_lab/trust.jsonl --show

Seeds 1 and 2 have chosen the score of ``familiar.py`` and the tests of ``shift.py``. A line on shift is asked for
``ASKED`` pictures of each kind.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import csv
import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy
import torch
from pandas import DataFrame
from PIL import Image
from tabulate import tabulate

from experiments.result_lines import keep_lines, parser_of
from experiments.trust_lab import folders as trust_folders
from labelling.answer import Answers
from labelling.classifier import PromptedClassifier
from labelling.rules import LabelRule
from labelling.shift import lines_after
from labelling.threshold import Threshold
from trainers.common.errors import UserError
from trainers.common.record_file import UNFAMILIAR
from trainers.evaluation.uncertainty import expected_calibration_error

ODD = 15  # odd pictures of each kind
ASKED = 90  # of another data set, and of each camera
OWN = "kept aside"
CAMERAS = (OWN, *trust_folders.CAMERAS)  # kinds of pictures whose labels are known
Line = dict[str, object]


def incoming(folder: trust_folders.Folder, seed: int) -> Iterator[tuple[str, list[Image.Image]]]:
    """Yield what comes in beside the pictures kept aside; a changed camera takes those that are ``chosen``."""
    draws = numpy.random.default_rng(seed)
    yield "odd", trust_folders.odd(ODD, draws)
    other = trust_folders.draw(trust_folders.ANOTHER[folder.kind], seed + 1000).aside.pictures
    yield "another data set", [other[place] for place in chosen(len(other), seed)]
    some = [folder.aside.pictures[place] for place in chosen(len(folder.aside.pictures), seed)]
    yield from trust_folders.cameras(some, seed)


def chosen(number: int, seed: int) -> numpy.ndarray:
    """Return the places of at most ``ASKED`` pictures."""
    order = numpy.random.default_rng(seed).permutation(number)
    return order[:ASKED]


def write_folder(folder: trust_folders.Folder, place: Path) -> Path:
    """Write the pictures to train on and a CSV file that names them; groups are named in the kind ``groups``
    alone, in the others the search for copies finds them."""
    is_named = folder.kind == "groups"
    rows = [["image", "label", "group"] if is_named else ["image", "label"]]
    for number, picture in enumerate(folder.known.pictures):
        name = f"{number}.png"
        picture.save(place / name)
        labels = [folder.names[label] for label in numpy.flatnonzero(folder.known.truth[number])]
        row = [name, ";".join(labels)]
        rows.append([*row, str(folder.known.groups[number])] if is_named else row)
    file = place / "labels.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return file


def promised(rule: LabelRule | None) -> float | None:
    """Return the share of errors that a rule promises; None where it promises nothing."""
    if isinstance(rule, Threshold):
        return rule.share if rule.point is not None else None
    found = re.match(r"At most ([0-9.]+) %", "" if rule is None else rule.says)
    return float(found[1]) / 100 if found else None


def judged(kind: str, seed: int) -> Iterator[Line]:
    """Yield a line for each kind of pictures that come in."""
    folder = trust_folders.draw(kind, seed)
    with tempfile.TemporaryDirectory() as place:
        file = write_folder(folder, Path(place))
        run = f"{place}/run"
        PromptedClassifier.fit(
            file, backbone="tiny", folder=run, seed=seed, multi_label=folder.is_several
        )
        try:
            classifier = PromptedClassifier.load(run, max_error="best")
        except UserError:  # of multi-label pictures: nothing can be promised
            classifier = PromptedClassifier.load(run)
        share = promised(classifier.rule)
        aside = truth_of(folder, classifier.classnames)
        for name, pictures in [(OWN, folder.aside.pictures), *incoming(folder, seed)]:
            answers = classifier.predict(pictures)
            assert answers.unfamiliar is not None
            some = numpy.arange(len(answers))
            truth = None
            if name in CAMERAS:
                truth = aside if name == OWN else aside[chosen(len(aside), seed)]
            if name == OWN:
                some = chosen(len(answers), seed)
            said = lines_after(classifier, run, answers.uncertainty[some], answers.unfamiliar[some])
            line: Line = {
                "kind": kind,
                "seed": seed,
                "asked": name,
                "pictures": len(answers),
                "unfamiliar": int((answers.unfamiliar <= UNFAMILIAR).sum()),
                "promised": share,
                "said": bool(said),
            }
            yield line | labelled(classifier, answers, truth)


def truth_of(folder: trust_folders.Folder, names: Sequence[str]) -> numpy.ndarray:
    """Return the labels (N, K) of the pictures kept aside, in the order of the names."""
    truth = folder.aside.truth
    columns = [folder.names.index(name) for name in names]
    return truth[:, columns]


def labelled(
    classifier: PromptedClassifier, answers: Answers, truth: numpy.ndarray | None
) -> dict[str, object]:
    """Return how many pictures are given a label, with and without those that are unlike the run's, and how
    many of the labels are given and wrong; accuracy and calibration of one label.

    truth: (N, K); None where no label is right.
    """
    rule = classifier.rule
    known = {name: place for place, name in enumerate(answers.classnames)}
    if answers.thresholds is None:
        assert isinstance(rule, Threshold)
        within = numpy.array([rule.rejects(one) is False for one in answers.uncertainty.tolist()])
        given = numpy.zeros(answers.probabilities.shape, bool)
        given[range(len(answers)), [known[label] for label in answers.labels]] = True
    else:
        given = numpy.asarray(answers).astype(bool)
        within = numpy.asarray(given.any(axis=1))
    assert answers.unfamiliar is not None
    is_familiar = answers.unfamiliar > UNFAMILIAR
    keeps = within & is_familiar
    found: dict[str, object] = {"within": int(within.sum()), "labelled": int(keeps.sum())}
    if truth is None:
        return found
    found["given"] = int(given[keeps].sum())
    found["wrong"] = int((given & ~truth)[keeps].sum())
    if answers.thresholds is None:
        right = torch.from_numpy((given & truth).any(axis=1))
        found["accuracy"] = 100 * float(right.double().mean())
        probability = torch.from_numpy(answers.probabilities)
        labels = torch.from_numpy(truth.argmax(axis=1))
        found["ece"] = float(expected_calibration_error(probability, labels))
    return found


def table(lines: DataFrame) -> str:
    """Return a row per kind of pictures that come in: shares in percent, mean and deviation over the seeds of
    the means over the folders."""
    rows = []
    for asked, own in lines.groupby("asked", sort=False):
        promises = own[own["promised"].notna()]
        row = {
            "pictures": asked,
            "folders": len(own),
            "unfamiliar, %": over_seeds(own, own["unfamiliar"] / own["pictures"]),
            "least": f"{(100 * own['unfamiliar'] / own['pictures']).min():.0f}",
            "most": f"{(100 * own['unfamiliar'] / own['pictures']).max():.0f}",
            "labelled, %": over_seeds(promises, promises["labelled"] / promises["pictures"]),
            "without p-values": over_seeds(promises, promises["within"] / promises["pictures"]),
            "a line": f"{own['said'].sum()} of {len(own)}",
            "promises broken": "–",
            "of these a line": "–",
        }
        if asked in CAMERAS:
            broken = promises[promises["wrong"] > promises["promised"] * promises["given"]]
            row["promises broken"] = f"{len(broken)} of {len(promises)}"
            row["of these a line"] = f"{broken['said'].sum()} of {len(broken)}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def over_seeds(lines: DataFrame, share: "DataFrame") -> str:
    """Return the mean ± deviation over seeds of shares' means, in percent."""
    means = (100 * share).groupby(lines["seed"]).mean()
    return f"{means.mean():.1f} ± {means.std():.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser_of(__doc__, seeds=(3, 4, 5)).parse_args(arguments)
    parts = ((kind, seed) for seed, kind in product(args.seeds, trust_folders.KINDS))
    print(table(keep_lines(args, "kind", parts, judged)))


if __name__ == "__main__":
    main()

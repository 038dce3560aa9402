"""Made-up runs, and a report on them."""

import json
import re

import numpy
import pytest
import torch

from protocols.plan import PROTOCOL_OF
from report.__main__ import main
from tests import chromium
from tests.runs import call, make_record, write_answers
from trainers.common.metrics import write_metrics
from trainers.common.record_file import MULTI_LABEL, ZERO_SHOT
from trainers.evaluation.multi_label import (
    best_thresholds,
    given_in,
    measure_multi_label,
    thresholds_of_folds,
)
from trainers.evaluation.prediction import Prediction, measure

LABELS = ("ball", "cat", "dog", "eel")
NASTY = ('<script>alert("1")</script>', "salt & 'pepper' $x_1$", "a" * 90, "plain")


def write(
    root,
    part,
    trainer,
    seed,
    accuracy,
    classes="all",
    split="abc",
    data="openmoji",
    shots=16,
    recipe="tiny",
    **changes,
):
    """A run with a record where a protocol has it; changes: further fields of the record."""
    folder = root / f"{part}/{data}/shots_{shots}/{trainer}/{recipe}/seed{seed}"
    folder.mkdir(parents=True)
    given = {"protocol": PROTOCOL_OF.get(part) or part.split("_from_")[0], "part": part}
    given["recipe" if re.match("tiny|vit_|rn", recipe) else "row"] = recipe
    if given["protocol"] == "base2new" and "row" in given:
        given["protocol"] = "ablation"
    facts = {"trainer": trainer, "dataset": data, "classes": classes, "shots": shots, "seed": seed}
    facts |= {"metrics": {"test": {"accuracy": accuracy}}, "split_hash": split}
    record = make_record(given, **{**facts, **changes})
    (folder / "results.json").write_text(json.dumps(record))
    return folder


def write_pair(root, trainer, seed, base, new, data="openmoji", **changes):
    write(root, "train_base", trainer, seed, base, "base", f"{data} base{seed}", data, **changes)
    write(root, "test_new", trainer, seed, new, "new", f"{data} new{seed}", data, **changes)


def values(table, by_seed=True):
    """Row → column → list of the seeds' values, or the mean, without what is not defined."""
    frame = table.by_seed if by_seed else table.means
    return {
        key: {name: part[name].tolist() if by_seed else part[name].item() for name in table.names}
        for key, part in frame.groupby(level=table.heads, sort=False)
    }


def make_answers(seed, images=40, classes=4, templates=0):
    """What a run says of its images, at random."""
    generator = numpy.random.default_rng(seed)
    probability = generator.dirichlet(numpy.ones(classes), images).astype("float32")
    probability = numpy.sort(probability)[:, ::-1]
    answers = {
        "image": numpy.array([f"folder <{index % 3}>/{index:03d}.png" for index in range(images)]),
        "label": numpy.arange(images) % classes,
        "top": numpy.array([generator.permutation(classes) for _ in range(images)]),
        "top_probability": probability,
        "max_probability": 1 - probability[:, 0],
        "energy": generator.normal(size=images),
    }
    if templates:
        answers |= {
            "vacuity": generator.uniform(0.001, 1, images).astype("float32"),
            "conflict": generator.uniform(0, 1, images),
            "vote": generator.integers(0, classes, (templates, images)),
            "vote_probability": generator.uniform(0.2, 1, (templates, images)),
        }
    return answers


def measured(arrays, names):
    """The metrics of answers that have all classes, as a run measures them."""
    parts = {
        name: torch.tensor(values.copy()) for name, values in arrays.items() if name != "image"
    }
    shape = len(parts["label"]), max(len(names), int(parts["top"].max()) + 1)
    zeros = torch.zeros(shape, dtype=parts["top_probability"].dtype)
    probability = zeros.scatter(1, parts["top"], parts["top_probability"])
    doubts = {name: parts[name] for name in ("energy", "vacuity", "conflict") if name in parts}
    return measure(Prediction(probability, **doubts), parts["label"], names)


def write_run(root, part, trainer, seed, classes="all", arrays=None, names=NASTY, **changes):
    """A run with the record's metrics that a report reads: where there are arrays, those of these
    answers, which it keeps."""
    accuracy = 50.0 + 3 * seed + len(trainer)
    doubt = {"max_probability": {"aurc": 20.0 + seed, "error_auroc": 70.0 + seed}}
    metrics = {
        "accuracy": accuracy,
        "macro_f1": accuracy - 1,
        "per_class_accuracy": dict.fromkeys(names, 50.0),
        "ece": 10.0 + seed,
        "adaptive_ece": 11.0 + seed,
        "nll": 1.0 + seed,
        "brier": 0.5,
        "uncertainty": {**doubt, "energy": {"aurc": 30.0, "error_auroc": None}},
    }
    if arrays is not None and "metrics" not in changes:
        metrics |= measured(arrays, names)
    changes = {"prompts_hash": f"{trainer} {seed}", "metrics": {"test": metrics}, **changes}
    folder = write(root, part, trainer, seed, accuracy, classes, f"{part} {seed}", **changes)
    if arrays is not None:
        write_answers(folder, "test", arrays)
    return folder


def make_label_answers(seed, images=40, labels=4, folds=5, gives=True):
    """What a multi-label run says of its pictures, at random, two of a group; the last label has no
    picture.

    folds: 1 where the pictures were held out; gives: whether labels are given, and not only ranked.
    """
    generator = numpy.random.default_rng(seed)
    truth = generator.random((images, labels)) < 0.4
    truth[:, -1] = False
    noise = generator.normal(size=(images, labels))
    probability = (1 / (1 + numpy.exp(1 - 2 * truth - noise))).astype("float32")
    group = numpy.arange(images) // 2
    fold = group % folds
    threshold = numpy.full((folds, labels), numpy.inf)
    if gives:
        threshold[:] = 0.6
    if gives and folds > 1:
        threshold = thresholds_of_folds(probability, truth, fold)
    return {
        "image": numpy.array([f"pictures/{index:03d}.png" for index in range(images)]),
        "probability": probability,
        "truth": truth,
        "group": group,
        "fold": fold,
        "threshold": threshold,
    }


def measured_labels(arrays, names):
    """The metrics of such answers, as a run measures them."""
    metrics = measure_multi_label(arrays["probability"], given_in(arrays), arrays["truth"], names)
    threshold = arrays["threshold"][0]
    if len(arrays["threshold"]) > 1:
        threshold = best_thresholds(arrays["probability"], arrays["truth"])
    for own, least in zip(metrics["per_label"].values(), threshold):
        own["threshold"] = float(least) if numpy.isfinite(least) else None
    if numpy.isinf(arrays["threshold"]).all():
        for name in ("micro_f1", "macro_f1"):
            del metrics[name]
        for own in metrics["per_label"].values():
            del own["f1"], own["threshold"]
    return metrics


def write_labels(root, seed=1, trainer="BinaryProbe", arrays=None, names=LABELS, **changes):
    """A multi-label run of one's own pictures, and the answers that it keeps."""
    if arrays is None:
        arrays = make_label_answers(seed, gives=trainer != ZERO_SHOT)
    folder = root / trainer / f"seed{seed}"
    folder.mkdir(parents=True)
    facts = {"trainer": trainer, "dataset": "ImageFolder", "seed": seed, "shots": -1}
    facts |= {"task": MULTI_LABEL, "classnames": [*names], "prompts_hash": f"{trainer} {seed}"}
    facts["config"] = {
        "DATASET": {"ROOT": "/home/me/scenes.csv"},
        "MODEL": {"BACKBONE": {"NAME": "tiny"}},
    }
    if len(arrays["threshold"]) > 1:
        facts["folds"] = len(arrays["threshold"])
    facts["metrics"] = {"test": measured_labels(arrays, names)}
    (folder / "results.json").write_text(json.dumps(make_record(**{**facts, **changes})))
    write_answers(folder, "test", arrays)
    return folder


def write_curve(folder, *means):
    """``metrics.jsonl`` of a training of two epochs; means: (epoch, loss, accuracy) of each line."""
    for epoch, loss, accuracy in means:
        figures = {"epoch": epoch, "epochs": 2, "batch": 1, "batches": 1, "loss": loss}
        write_metrics(folder, {**figures, "acc": accuracy, "lr": 0.1, "eta": 60.0})


class Page(chromium.Page):
    def __init__(self, path):
        super().__init__(path.read_text())
        self.text = "".join(self.pieces)


@pytest.fixture(scope="package")
def report(tmp_path_factory):
    """A report with every kind of figure: base to new of two trainers and seeds, corrupted images,
    few shots; with its folder."""
    root = tmp_path_factory.mktemp("report")
    for seed in (1, 2):
        for trainer, templates in (("CDC", 3), ("CoOp", 0)):
            for part, classes in (("train_base", "base"), ("test_new", "new")):
                answers = make_answers(seed + len(classes), templates=templates)
                folder = write_run(root / "base2new", part, trainer, seed, classes, answers)
                write_curve(folder, (1, 8.0, 8.0), (2, 6.0, 6.0))
        write_run(root / "transfer", "train_source", "CDC", seed)
        answers = make_answers(seed, templates=3)
        target = {"arrays": answers, "data": "openmoji_corrupted"}
        write_run(root / "transfer", "dg_from_openmoji", "CDC", seed, **target)
        for shots in (1, 4):
            write_run(root / "fewshot", "train_all", "CoOp", seed, shots=shots)
    assert call(main, root, "--output", f"{root}/out/page.html") == 0
    return root


@pytest.fixture
def page(report):
    return Page(report / "out/page.html")

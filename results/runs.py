"""The finished runs below folders: their records, their answers to every test image, and their
curves of training."""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from protocols import PROTOCOLS
from trainers.common.console import counted
from trainers.common.errors import UserError, raise_machines
from trainers.common.files import file_hash
from trainers.common.metrics import read_metrics
from trainers.common.record_file import (
    RECORD_FILE,
    ROUNDS,
    ZERO_SHOT,
    Record,
    answers_file,
    is_multi_label,
    read_answers,
    read_record,
)

from .experiment import seeds_in_words, split

log = logging.getLogger(__name__)

PREDICTIONS = answers_file("test")
REQUIRED = ("image", "label", "top", "top_probability", "max_probability")
MEASURED = ("images", "map", "ece", "per_label")  # by every multi-label run that was tested
MULTI_LABEL_ARRAYS = (
    "image",
    "probability",
    "truth",
    "group",
    "fold",
    "threshold",
)  # of such a run
CLASS_NUMBERS = ("label", "top", "vote")  # arrays of numbers of classes
VOTES = ("vote", "vote_probability")  # of runs whose templates vote
# array → kind of its values, and its shape: N images, T most probable classes, M templates, K classes, F folds;
# the others: numbers (N,)
LAYOUT = {
    "image": ("U", "N"),
    "label": ("i", "N"),
    "top": ("i", "NT"),
    "top_probability": ("f", "NT"),
    "vote": ("i", "MN"),
    "vote_probability": ("f", "MN"),
    "vote_vacuity": ("f", "MN"),
    "vote_weight": ("f", "M"),
    "is_new": ("b", "N"),
    "probability": ("f", "NK"),
    "truth": ("b", "NK"),
    "group": ("i", "N"),
    "fold": ("i", "N"),
    "threshold": ("f", "FK"),
}
HALVES = ("train_base", "test_new")  # parts of base-to-new
# part of the protocol → version of the test images
FACTOR_PARTS = {part: version for part, _, _, version in PROTOCOLS["factors"]["parts"]}
VARIANTS = {
    **{part: f" {version}" for part, version in FACTOR_PARTS.items()},
    "test_open": ", base and new together",
}  # stands behind the data set's name

Arrays = dict[str, numpy.ndarray]  # by name, as ``prediction.per_image``
Task = tuple[str, str, int]  # as ``FinishedRun.task``
Curve = dict[int, float]  # epoch → value


@dataclass(eq=False)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: where it lies, absolute.
        record: its ``results.json``; ``record["run"]`` describes the run.
    """

    folder: Path
    record: Record

    @property
    def seed(self) -> int:
        seed: int = self.record["seed"]
        return seed

    @property
    def is_multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return is_multi_label(self.record)

    @property
    def part(self) -> str:
        """Part of the protocol; empty for a run made by hand."""
        return self.record["run"]["part"] or ""

    @property
    def is_training(self) -> bool:
        """Whether it has prompts of its own, and tested no other run's."""
        return not self.part or self.part.startswith("train_")

    @property
    def task(self) -> Task:
        """The tested data set, its classes (``all``, ``base``, ``new``), training images per class."""
        what = self.record["run"]
        variant = ", multi-label" if self.is_multi_label else VARIANTS.get(self.part, "")
        return what["dataset"] + variant, what["classes"], what["shots"]

    @property
    def config(self) -> str:
        """The ablation's row or the recipe; empty for a run made by hand."""
        what = self.record["run"]
        return what["row"] or what["recipe"] or ""

    @property
    def model(self) -> str:
        return f"{self.record['trainer']} {self.config}".strip()

    @property
    def place(self) -> Path:
        """Folder of the runs that differ from this one in their seed only."""
        is_seed = re.fullmatch(r"seed-?\d+", self.folder.name)
        return self.folder.parent if is_seed else self.folder

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the test images; empty where it was tested on others."""
        measured: dict[str, Any] = self.record["metrics"].get("test", {})
        return measured

    @property
    def classnames(self) -> list[str]:
        """Names of all classes to choose from."""
        names: list[str] = self.record["classnames"]
        return names

    @cached_property
    def answers(self) -> Arrays | None:
        """Answers to the test images, as ``answers_to``."""
        return self.answers_to("test")

    @cached_property
    def validation_answers(self) -> Arrays | None:
        """Answers to the validation images that are not test images, as ``answers_to``."""
        return self.answers_to("val")

    @cached_property
    def training_answers(self) -> Arrays | None:
        """Answers to the training images by folds that have not seen them, as ``answers_to``; there
        are some where cross-validation has chosen the trainer. Nothing but lists is made of them:
        where they can't be read, they are left out with a warning."""
        try:
            return self.answers_to("train")
        except UserError as error:
            log.warning("training images are left out of the lists: %s", error)
            return None

    def answers_to(self, split: str) -> Arrays | None:
        """Return the arrays of the file of answers to a split by name; None without such a file.

        ``answer`` (N,), the most probable class, and ``right`` (N,), bool, whether that is the
        image's own, are added to what the file of a run for one label has.

        Raises:
            UserError: it can't be read, or was not written by this run.
        """
        path = self.folder / answers_file(split)
        if not path.is_file():
            return None
        try:
            arrays = read_answers(self.folder, split, self.record)
        except Exception as error:  # damaged bytes can raise anything
            raise_machines(error, path)
            why = " ".join(str(error).split())
            raise UserError(f"{path} can't be read ({why}): run it again") from error
        required = MULTI_LABEL_ARRAYS if self.is_multi_label else REQUIRED
        check_layout(arrays, path, len(self.classnames), required)
        if not self.is_multi_label:
            arrays["answer"] = arrays["top"][:, 0]
            arrays["right"] = arrays["answer"] == arrays["label"]
        return arrays

    @property
    def known_answers(self) -> Arrays:
        """Return the answers to the test images.

        Raises:
            UserError: the run has none, or they can't be read.
        """
        if self.answers is None:
            raise UserError(
                f"{self.folder / PREDICTIONS} is missing: delete {self.folder} and run it again"
            )
        return self.answers

    def class_name(self, label: int) -> str:
        """Name of a class: as in the test's per-class accuracies, else the run's."""
        present = numpy.unique(self.known_answers["label"]).tolist()
        names = dict(enumerate(self.classnames))
        accuracies = self.metrics.get("per_class_accuracy", ())
        if len(accuracies) == len(present):
            names |= zip(present, accuracies)
        return names.get(label, f"class {label}")


def check_layout(arrays: Arrays, path: Path, classes: int, required: tuple[str, ...]) -> None:
    """Check the arrays of a file of answers.

    Raises:
        UserError: an array is missing, or it is not as ``LAYOUT`` says.
    """
    if arrays.keys() & {*VOTES}:
        required += VOTES
    if missing := [name for name in required if name not in arrays]:
        raise UserError(f"{path} lacks {', '.join(missing)}: run it again with this version")
    sizes = {"K": classes}  # of the letters in ``LAYOUT``
    odd = []
    for name, array in arrays.items():
        code, axes = LAYOUT.get(name, ("f", "N"))
        fits = array.dtype.kind == code and array.ndim == len(axes) and array.size
        for axis, size in zip(axes, array.shape):
            fits = fits and sizes.setdefault(axis, size) == size
        if not fits:
            odd.append(name)
    ends = dict.fromkeys(CLASS_NUMBERS, (0, classes - 1))
    ends |= {"probability": (0, 1), "fold": (0, sizes.get("F", 1) - 1)}
    for name, (least, most) in ends.items():
        is_known = name in arrays and name not in odd
        if is_known and not least <= arrays[name].min() <= arrays[name].max() <= most:
            odd.append(name)
    if odd:
        raise UserError(
            f"{path} is not what a run leaves ({odd[0]} has another shape or kind of values): "
            "run it again"
        )


@dataclass
class RunSeries:
    """Runs that differ in their seed only.

    Attributes:
        task: as in ``FinishedRun``.
        tested_on: the task's name; with the training images only where tasks differ in
        them.
        name: the model's, different in every series of the task.
        runs: by seed.
    """

    task: Task
    tested_on: str
    name: str
    runs: list[FinishedRun]

    @property
    def first(self) -> FinishedRun:
        """The run of the lowest seed."""
        return self.runs[0]

    @property
    def is_multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return self.first.is_multi_label

    @property
    def is_zero_shot(self) -> bool:
        """Whether nothing was trained."""
        trainer: str = self.first.record["trainer"]
        return trainer == ZERO_SHOT

    @property
    def where(self) -> str:
        """Model and task, which tell it from every other series."""
        return f"{self.name}, {self.tested_on}"

    def has(self, array: str) -> bool:
        return all(array in run.known_answers for run in self.runs)

    def pool(self, array: str) -> numpy.ndarray:
        """The images of all seeds, one after the other: (N,), or (M, N) for votes.

        Raises:
            UserError: the runs don't fit together.
        """
        try:
            return numpy.concatenate([run.known_answers[array] for run in self.runs], axis=-1)
        except ValueError as error:
            raise UserError(
                f"the seeds in {self.first.place} have different settings ({array}: {error}): "
                "report on them one by one, or make them again"
            ) from error


def collect(*folders: str | Path) -> list[FinishedRun]:
    """All finished runs in or below the folders, each once, in the order of the folders.

    Raises:
        UserError: one of the folders holds none, a record can't be read, or as ``read_run``.
    """
    runs: dict[Path, FinishedRun] = {}
    for folder in folders:
        paths = sorted(path for path in Path(folder).rglob(RECORD_FILE) if is_newest(path, folder))
        if not paths:
            raise UserError(
                f"no {RECORD_FILE} in or below {folder}: give the folder of a finished run, or one "
                "that holds such folders"
            )
        for path in paths:
            place = path.parent.resolve()
            runs[place] = runs.get(place) or read_run(place)
    return list(runs.values())


def is_newest(path: Path, folder: str | Path) -> bool:
    """Return whether a record below a folder is a run's newest one, and not of a former round."""
    return ROUNDS not in path.relative_to(folder).parts


def read_run(folder: Path) -> FinishedRun:
    """Read the finished run in a folder, and check its metrics against its answers, if the run's own are
    there.

    Raises:
        UserError: its record can't be read, or contradicts the answers whose hash it has.
    """
    # here, since it needs torch, and a wrong argument is answered before
    from .remeasured import contradiction

    run = FinishedRun(folder, read_record(folder / RECORD_FILE))
    if run.is_multi_label and run.metrics:
        check_labels(run)
    for split_, known in run.record.get("answers", {}).items():
        path = folder / answers_file(split_)
        metrics = run.record["metrics"].get(split_)
        if metrics is None or not path.is_file() or file_hash(path) != known:
            continue
        try:
            arrays = run.answers_to(split_)
        except UserError:  # a former version left less: a command that needs the answers says so
            continue
        if arrays is None:
            continue
        if odd := contradiction(metrics, arrays, run.classnames, run.is_multi_label):
            raise UserError(
                f"{folder / RECORD_FILE} tells of {split_} {odd} in {path.name}: put the run's own record "
                "there again, or delete the folder and run it again"
            )
    return run


def check_labels(run: FinishedRun) -> None:
    """Check that a multi-label run's record has all measures of such runs, for each of its labels.

    Raises:
        UserError: it has not.
    """
    missing = [name for name in MEASURED if name not in run.metrics]
    if not missing and {*run.metrics["per_label"]} != {*run.classnames}:
        missing = ["per_label of each label"]
    if missing:
        raise UserError(
            f"{run.folder / RECORD_FILE} is not a multi-label run's record (its metrics lack "
            f"{', '.join(missing)}): put the run's own record there again, or delete the folder and "
            "run it again"
        )


def group(runs: Iterable[FinishedRun]) -> list[RunSeries]:
    """The runs as a list of ``RunSeries``, by task, then in the order of the runs.

    A name is the model's; where one task has that model in several places, it says which, and where
    a place's seeds are not one experiment, which seeds.
    """
    places: dict[tuple[Task, str], dict[Path, list[FinishedRun]]] = {}
    for run in runs:
        of_model = places.setdefault((run.task, run.model), {})
        of_model.setdefault(run.place, []).append(run)
    differ_in_shots = len({shots for (*_, shots), _ in places}) > 1
    series = []
    for (task, model), members in places.items():
        data, classes, shots = task
        parts = [data]
        if classes != "all":
            parts.append(f"{classes} classes")
        if differ_in_shots:
            parts.append(shots_in_words(shots))
        tested_on = ", ".join(parts)
        for place, seeds in members.items():
            name = model if len(members) == 1 else f"{model} ({distinct_part(place, members)})"
            seeds.sort(key=lambda run: run.seed)
            groups = split([run.record for run in seeds])
            for of_group in groups:
                own = f", {seeds_in_words(of_group)}" if len(groups) > 1 else ""
                alike = [run for run in seeds if run.seed in of_group]
                series.append(RunSeries(task, tested_on, name + own, alike))
    return sorted(series, key=lambda entry: entry.task)


def shots_in_words(shots: int) -> str:
    """A number of training images per class; below 1: all."""
    return counted(shots, "shot") if shots > 0 else "no few-shot sample"


def distinct_part(place: Path, places: Iterable[Path]) -> str:
    """Return a path without the folders that all the paths start or end with."""
    paths = [path.parts for path in places]
    start = len(os.path.commonprefix(paths))
    end = len(os.path.commonprefix([path[:start:-1] for path in paths]))
    return "/".join(place.parts[start : len(place.parts) - end]) or place.name


def with_answers(series: Iterable[RunSeries]) -> list[RunSeries]:
    """Return the series, each with only its runs that have answers."""
    answered = []
    for entry in series:
        runs = [run for run in entry.runs if run.answers]
        if runs:
            answered.append(replace(entry, runs=runs))
    return answered


def training_curve(run: FinishedRun) -> dict[str, Curve]:
    """``loss`` and ``acc`` → epoch (from 1) → mean over that epoch; empty where nothing was
    trained.
    """
    lines = read_metrics(run.folder)
    if not lines:
        return {}
    loss = {int(line["epoch"]): line["loss"] for line in lines}
    accuracy = {int(line["epoch"]): line["acc"] for line in lines}
    return {"loss": loss, "acc": accuracy}

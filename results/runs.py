"""The runs that a report is about: records, what was said of every test image, and how training went."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from trainers.common.errors import UserError
from trainers.common.metrics import read_metrics
from trainers.common.readers import read_arrays as read_packed
from trainers.common.record_file import Record, shown_name

from .doubts import IMAGES
from .table import FACTOR_PARTS, read_records

PREDICTIONS = "predictions-test.npz"
REQUIRED = ("image", "label", "top", "top_probability", "max_probability")
# <part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>, see protocols/plan.py
LAYOUT = re.compile(
    rf"(train_base|test_new|test_open|train_all|test_all|train_source|(?:xd|dg)_from_[^/]+|{'|'.join(FACTOR_PARTS)})/([^/]+)/"
    r"shots_(\d+)/([^/]+)/([^/]+)/seed-?\d+"
)


Arrays = dict[str, numpy.ndarray]  # by name, see ``trainers.evaluation.prediction.per_image``
Setting = tuple[str, str, int]  # see ``Run``
Curve = dict[int, float]  # epoch → value


@dataclass
class Run:
    """A done run.

    Attributes:
        folder: where it lies, absolute.
        record: its ``results.json``.
        answers: arrays of its ``predictions-test.npz``, see ``trainers.evaluation.prediction.per_image``; None where there is no such file.
        setting: what was tested: data set, classes (``all``, ``base``, ``new``), training images a class.
        model: trainer and config (by hand: trainer and folder), as one string.
        place: folder of the runs it belongs to; runs of one place, setting and model differ in their seed only.
        protocol: folder of its protocol, which ``results.table.collect`` takes; None where it lies elsewhere.
    """

    folder: Path
    record: Record
    answers: Arrays | None
    setting: Setting
    model: str
    place: Path
    protocol: Path | None

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the test images; empty where it was tested on others."""
        return self.record["metrics"].get("test", {})

    @property
    def known_answers(self) -> Arrays:
        """Its ``answers``, for what is only asked of runs that have them."""
        assert self.answers is not None
        return self.answers

    def class_name(self, label: int) -> str:
        """Name of a class: as in the test's per-class accuracies, else the run's."""
        present = numpy.unique(self.known_answers["label"]).tolist()
        names = list(self.metrics.get("per_class_accuracy", ()))
        if label in present and len(names) == len(present):
            return names[present.index(label)]
        classnames = self.record.get("classnames", ())
        return classnames[label] if label < len(classnames) else f"class {label}"


@dataclass
class Series:
    """Runs that differ in their seed only.

    Attributes:
        setting: see ``Run``.
        name: the model's, different from that of every other series of the setting.
        runs: by seed.
    """

    setting: Setting
    name: str
    runs: list[Run]

    def has(self, array: str) -> bool:
        return all(array in run.known_answers for run in self.runs)

    def pooled(self, array: str) -> numpy.ndarray:
        """The images of all seeds, one after the other: (N,), or (M, N) for votes.

        Raises:
            UserError: the runs don't fit together.
        """
        try:
            return numpy.concatenate([run.known_answers[array] for run in self.runs], axis=-1)
        except ValueError as error:
            raise UserError(
                f"the seeds in {self.runs[0].folder.parent} have different settings ({array}: {error}): report on them one by "
                "one, or make them again"
            ) from error

    @property
    def answer(self) -> numpy.ndarray:
        """(N,) most probable class of the images of all seeds."""
        return numpy.concatenate([run.known_answers["top"][:, 0] for run in self.runs])

    @property
    def right(self) -> numpy.ndarray:
        """(N,) bool, whether that is the image's own."""
        return numpy.concatenate([is_right(run.known_answers) for run in self.runs])


def is_right(answers: Arrays) -> numpy.ndarray:
    """(N,) bool: whether the most probable class is the image's own."""
    return answers["top"][:, 0] == answers["label"]


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """All done runs in or below the folders, each once, in the order of the folders.

    Raises:
        UserError: one of the folders holds none, or a file can't be read.
    """
    found: dict[Path, tuple[Record, Arrays | None]] = {}
    for folder in folders:
        records = list(read_records(folder))
        if not records:
            raise UserError(
                f"no results.json in or below {folder}: give the folder of a finished run, or one that holds such folders"
            )
        for path, record in records:
            place = (Path(folder) / path).parent.resolve()
            found.setdefault(place, (record, read_answers(place / PREDICTIONS)))
    return [make_run(folder, record, answers) for folder, (record, answers) in found.items()]


def make_run(folder: Path, record: Record, answers: Arrays | None) -> Run:
    """The ``Run`` in an absolute folder; where it lies as the protocols lay it, the folders' names say what it is."""
    match = LAYOUT.fullmatch("/".join(folder.parts[-6:]))
    if match:
        part, data, shots, trainer, config = match.groups()
        if part in FACTOR_PARTS:  # the same images but for one factor
            data = f"{data} {FACTOR_PARTS[part]}"
        elif (
            part == "test_open"
        ):  # trained on base classes, unlike the others that are asked with all
            data = f"{data}, base and new together"
        setting = (data, record["classes"], int(shots))
        return Run(
            folder,
            record,
            answers,
            setting,
            f"{trainer} {config}",
            folder.parents[4],
            folder.parents[5],
        )
    own = folder.parent if re.fullmatch(r"seed-?\d+", folder.name) else folder
    setting = (shown_name(record), record["classes"], record["shots"])
    model = (
        record["trainer"] if own.name == record["trainer"] else f"{record['trainer']} {own.name}"
    )
    return Run(folder, record, answers, setting, model, own.parent, None)


def read_answers(path: Path) -> Arrays | None:
    """Arrays by name, or None where there is no such file.

    Raises:
        UserError: it can't be read, or is not what a run leaves.
    """
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: run it again with this version")
    odd = next(odd_arrays(arrays), None)
    if odd is not None:
        raise UserError(
            f"{path} is not what a run leaves ({odd} has another shape or kind of values): run it again"
        )
    return arrays


def odd_arrays(arrays: Arrays) -> Iterator[str]:
    """Yields the names of arrays that don't fit ``trainers.evaluation.prediction.per_image``."""
    top = arrays["top"]
    count, answers = (len(top), top.shape) if top.ndim == 2 and top.size else (0, ())
    for name, array in arrays.items():
        kind, shape = {"image": "U", "label": "i", "top": "i", "vote": "i"}.get(name, "f"), (count,)
        if name in ("top", "top_probability"):
            shape = answers
        elif name in ("vote", "vote_probability"):
            shape = (*arrays["vote"].shape[:1], count) if "vote" in arrays else ()
        is_label = (
            kind == "i"
            and array.dtype.kind == "i"
            and array.size
            and not 0 <= array.min() <= array.max() < 2**31
        )
        if array.dtype.kind != kind or array.shape != shape or not array.size or is_label:
            yield name


def read_arrays(path: Path) -> Arrays:
    """Arrays by name of an ``.npz`` file.

    Raises:
        UserError: it can't be read.
    """
    try:
        return read_packed(path)
    except Exception as error:  # damaged bytes can raise anything
        raise UserError(
            f"{path} can't be read ({' '.join(str(error).split())}): run it again"
        ) from error


def read_doubts(run: Run) -> Arrays | None:
    """Arrays of the run's ``uncertainty.npz``, see ``analysis.uncertainty``; None where there is none, or it is older than the run.

    Raises:
        UserError: it can't be read.
    """
    path = run.folder / IMAGES
    if not path.is_file():
        return None
    from results.doubts import read_figures

    return read_arrays(path) if read_figures(run.folder, run.record) else None


def group(runs: Iterable[Run]) -> list[Series]:
    """The runs as a list of ``Series``, by setting, then in the order of the runs.

    A name is the model's; where one setting has that model twice, the place is added as far as needed.
    """
    groups: dict[tuple[Setting, str, Path], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.setting, run.model, run.place), []).append(run)
    made = []
    for (setting, model, place), members in groups.items():
        rivals = [
            other for at, name, other in groups if (at, name) == (setting, model) and other != place
        ]
        ends = ("/".join(place.parts[-length:]) for length in range(1, len(place.parts) + 1))
        end = next(
            end for end in ends if not any(str(other).endswith(f"/{end}") for other in rivals)
        )
        made.append(
            Series(
                setting,
                f"{model} ({end})" if rivals else model,
                sorted(members, key=lambda run: run.record["seed"]),
            )
        )
    return sorted(made, key=lambda series: series.setting)


def with_answers(series: list[Series]) -> list[Series]:
    """The same series of those runs only that have answers."""
    kept = [
        Series(one.setting, one.name, [run for run in one.runs if run.answers is not None])
        for one in series
    ]
    return [one for one in kept if one.runs]


def titles(settings: Iterable[Setting]) -> dict[Setting, str]:
    """setting → how it is called; the number of training images only where the settings differ in it."""
    several = len({shots for _, _, shots in settings}) > 1

    def title(data: str, classes: str, shots: int) -> str:
        number = (
            f", {shots} shot{'s' if shots > 1 else ''}" if shots > 0 else ", no few-shot sample"
        )
        return (
            data
            + ("" if classes == "all" else f", {classes} classes")
            + (number if several else "")
        )

    return {setting: title(*setting) for setting in settings}


def training_curve(run: Run, names: Sequence[str] = ("loss", "acc")) -> dict[str, Curve]:
    """Name of a figure of ``metrics.jsonl`` → epoch (from 1) → mean over that epoch; without epochs that have no such figure."""
    lines = read_metrics(run.folder)
    return (
        {name: {line["epoch"]: line[name] for line in lines if name in line} for name in names}
        if lines
        else {}
    )

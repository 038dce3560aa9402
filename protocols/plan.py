"""The protocols of the field as lists of runs, in CoOp's manner of naming folders.

A run lies in ``<output>/<part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>``; the parts are

- base2new: ``train_base`` trains on the base classes and tests on them, ``test_new`` tests the same
  prompts on the new ones,
- open: base2new, and ``test_open`` tests the same prompts on the images of all classes, with all
  classes to choose from,
- ablation: base2new for each row of configs/ablations/<trainer>.yaml, whose name stands in place of
  the config's,
- factors: ``train_biased`` trains on the base classes of a set in which one factor goes with the
  class, and tests where it always does; ``test_independent`` and ``test_reversed`` test the same
  prompts where it doesn't (datasets/drawn/factors.py); of the recipe, or of rows of the ablation
  that are named,
- fewshot: ``train_all`` trains on N shots of all classes and tests on them,
- xd and dg: ``train_source`` trains on all classes of the source, ``xd_from_<source>`` and
  ``dg_from_<source>`` test the same prompts on each target,
- zeroshot: ``test_all`` tests a trainer that learns nothing on all classes.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from trainers.common.errors import UserError
from trainers.common.fingerprints import data_name
from trainers.common.readers import read_yaml
from trainers.common.recipes import (
    EMBEDDED,
    IMAGE_FOLDER,
    Recipe,
    check_known,
    choose_recipe,
    config_names,
    config_path,
    recipe_path,
    short_name,
)
from trainers.common.record_file import RECORD_FILE

from . import PROTOCOLS

# protocol → source → data sets that its prompts are tested on
TARGETS = {
    name: protocol["targets"] for name, protocol in PROTOCOLS.items() if "targets" in protocol
}
# part → protocol; of a training that several protocols share, the first of them. The parts of xd and
# dg that test start with the protocol's name.
PROTOCOL_OF: dict[str, str] = {}
for name, protocol in PROTOCOLS.items():
    for part, *_ in protocol["parts"]:
        PROTOCOL_OF.setdefault(part, name)


@dataclass(frozen=True)
class PlannedRun:
    """One training or test, as a protocol plans it.

    Attributes:
        output: folder of the protocol's runs.
        part: of the protocol, such as ``train_base``.
        dataset: its name in folders and tables: the config file's, or one's own folder's of
            images.
        dataset_file: path of the data set's config file.
        classes: ``all``, ``base`` or ``new``.
        trainer: its registered name.
        recipe: path of the trainer's config file.
        row: name of the ablation's row; None: the recipe as it is.
        shots: training images a class, of the training where this is a test.
        seed: of the run.
        model: folder of the run whose prompts are tested; None: this run trains.
        backbone: name of the CLIP; None: the recipe's.
        settings: KEY, VALUE, KEY … of an ablation's row or a protocol's test, over the recipe and
            all other options.
    """

    output: str
    part: str
    dataset: str
    dataset_file: str
    classes: str
    trainer: str
    recipe: str
    row: str | None
    shots: int
    seed: int
    model: str | None = None
    backbone: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name among the runs of its trainer: the ablation's row, or the recipe, with the
        backbone where that is another."""
        recipe = Path(self.recipe).stem
        short = short_name(self.backbone or "")
        return self.row or (recipe if recipe.startswith(short) else f"{recipe}-{short}")

    @property
    def folder(self) -> str:
        """The run's folder, in CoOp's manner."""
        place = (self.dataset, f"shots_{self.shots}", self.trainer, self.name, f"seed{self.seed}")
        return os.path.join(self.output, self.part, *place)

    @property
    def protocol(self) -> str:
        """The protocol of its part: a training that protocols share is the same run in each."""
        protocol = PROTOCOL_OF.get(self.part) or self.part.split("_from_")[0]
        return "ablation" if self.row is not None and protocol == "base2new" else protocol

    @property
    def has_sample(self) -> bool:
        """Whether its data set has the few-shot sample; a test has no use for another set's."""
        return "_from_" not in self.part and self.part != "test_all"

    def arguments(self, root: str, options: Sequence[str] = ()) -> list[str]:
        """Arguments of ``train.py``; root: folder of the data sets."""
        names = ("protocol", "part", "dataset", "row", "shots")
        description = {name: getattr(self, name) for name in names}
        description["recipe"] = Path(self.recipe).stem if self.row else self.name
        words = ["--root", root, "--seed", str(self.seed), "--trainer", self.trainer]
        words += ["--dataset-config-file", self.dataset_file, "--config-file", self.recipe]
        words += ["--output-dir", self.folder, "--protocol", PROTOCOLS[self.protocol]["recipe"]]
        words += ["--run", json.dumps(description, ensure_ascii=False)]
        if self.backbone:
            words += ["--backbone", self.backbone]
        if self.model:
            words += ["--eval-only", "--model-dir", self.model]
        if self.has_sample:
            words += ["DATASET.NUM_SHOTS", str(self.shots)]
        return [*words, "DATASET.SUBSAMPLE_CLASSES", self.classes, *options, *self.settings]


@dataclass(frozen=True)
class AblationRow:
    """A variant of a trainer.

    Attributes:
        name: of letters, digits and underscores; also in its runs' folders.
        description: a few words.
        recipe: name of the recipe it builds on; ``{}`` in it stands for the one that the other rows
            build on.
        settings: KEY → value on top of it.
    """

    name: str
    description: str
    recipe: str = "{}"
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name) or not isinstance(self.settings, dict):
            raise ValueError(f"{self} has another name, or settings that are none")


def ablation_rows(trainer: str, names: Sequence[str] | None = None) -> list[AblationRow]:
    """The rows of configs/ablations/<trainer>.yaml in their order; with names only these. A name may
    also be a further file's, ``readings`` of <trainer>_readings.yaml, for all of its rows.

    Raises:
        UserError: the file is missing, isn't a list of rows, or has no row of one of the names.
    """
    rows = read_ablation(config_path("ablations", trainer, missing=f"{trainer} has no ablation"))
    if names is None:
        return rows
    further = further_ablations(trainer)
    for name in names:
        check_known(f"row of {trainer}'s ablation", name, [*(row.name for row in rows), *further])
    chosen = {row.name: row for row in rows if row.name in names}
    for name in names:
        for row in further.get(name, ()):
            chosen.setdefault(row.name, row)
    return [*chosen.values()]


def further_ablations(trainer: str) -> dict[str, list[AblationRow]]:
    """The rows of each file configs/ablations/<trainer>_<name>.yaml by its name."""
    start = f"{trainer}_"
    return {
        name.removeprefix(start): read_ablation(config_path("ablations", name, missing=""))
        for name in config_names("ablations")
        if name.startswith(start)
    }


def read_ablation(path: str) -> list[AblationRow]:
    """The rows of a file.

    Raises:
        UserError: it isn't a list of rows.
    """
    try:
        return [AblationRow(**entry) for entry in read_yaml(path)]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: it must be a list of rows with a name, a description, and as needed a recipe and settings "
            f"(KEY: VALUE): {error}"
        ) from error


def conditions_of(protocol: str, dataset_file: str, shots: int) -> dict[str, str | int]:
    """Return a run's facts for a recipe's rules: condition → its value, as in ``SettingsRule.conditions``.

    Args:
        protocol: one of ``PROTOCOLS``; dataset_file: config file of the data set that is tested on.
    """
    dataset = Path(dataset_file).stem
    conditions = {"protocol": PROTOCOLS[protocol]["recipe"], "dataset": dataset, "shots": shots}
    for source, targets in (pair for group in TARGETS.values() for pair in group.items()):
        if conditions["protocol"] == "xd" and dataset in targets:
            conditions |= {"dataset": source, "target": dataset}
    return conditions


def check_fits(protocol: str, trainer: str, recipe: Recipe, shots: Sequence[int]) -> None:
    """Check that a recipe, and numbers of shots, fit a protocol.

    Raises:
        UserError: zeroshot with a trained recipe, or several numbers of shots where one is taken.
    """
    if protocol == "zeroshot" and recipe.is_trained:
        raise UserError(
            f"zeroshot needs a training-free method such as ZeroshotCLIP; {trainer} is trained: --protocol fewshot"
        )
    if "shots" not in PROTOCOLS[protocol] and len(shots) > 1:
        raise UserError(
            f"--shots {' '.join(map(str, shots))}: {protocol} takes one number; the curve over shots is --protocol fewshot"
        )


def plan(
    protocol: str,
    trainer: str,
    dataset: str,
    shots: Sequence[int] | None,
    seeds: Sequence[int],
    output: str,
    config: str | None = None,
    rows: Sequence[str] | None = None,
    root: str = "data",
    backbone: str | None = None,
) -> list[PlannedRun]:
    """Return the runs of a protocol, each after the one whose prompts it tests.

    Args:
        protocol: one of ``PROTOCOLS``; trainer: registered name; dataset: name of a file of
            configs/datasets, the source of xd and dg.
        shots, seeds: lists of numbers; without shots the recipe's own or the protocol's; output:
            folder.
        config: name of a recipe; without it the backbone's (without one: tiny for the
            embedded data, else ViT-B/16).
        rows: names of the ablation's rows, for ablation (without it all of them) and factors
            (without it the recipe).
        root: folder of the data sets; one's own images are called by it.

    Raises:
        UserError: no such data set, recipe or row, no targets are known for that source, it has no
            known factors, or several numbers of shots make no sense.
    """
    is_drawn = dataset.startswith(("openmoji", "factors_"))
    wanted = backbone or (EMBEDDED if is_drawn else "ViT-B/16")
    config = config or choose_recipe(trainer, wanted, protocol)
    recipe = Recipe.read(recipe_path(trainer, config))
    planned = PROTOCOLS[protocol]
    parts = [(part, dataset, *more) for part, *more in planned["parts"]]
    if "targets" in planned:
        check_known(f"source of {protocol}, --dataset", dataset, planned["targets"])
        for target in planned["targets"][dataset]:
            parts.append((f"{protocol}_from_{dataset}", target, "all"))
    shots = shots or recipe.default_shots(planned["recipe"]) or planned.get("shots", [16])
    if not recipe.is_trained and dataset != IMAGE_FOLDER:
        # on which nothing depends, except which of one's own images are tested on
        seeds = seeds[:1]
    check_fits(protocol, trainer, recipe, shots)
    is_varied = protocol == "ablation" or bool(rows)
    variants = [AblationRow("recipe", "as it is")]
    if is_varied:
        variants = ablation_rows(trainer, rows)
    runs = []
    for number, seed, row in product(shots, seeds, variants):
        model = None
        for part, data, classes, *more in parts:
            missing = (
                f"no data set {data!r} (your own folder: --dataset {IMAGE_FOLDER} --root {data!r})"
            )
            run = PlannedRun(
                output=output,
                part=part,
                dataset=data_name("ImageFolder", root) if data == IMAGE_FOLDER else data,
                dataset_file=config_path("datasets", data, missing=missing),
                classes=classes,
                trainer=trainer,
                recipe=recipe_path(trainer, row.recipe.replace("{}", config)),
                row=row.name if is_varied else None,
                shots=number,
                seed=seed,
                model=model,
                backbone=backbone,
                settings=(*(str(word) for pair in row.settings.items() for word in pair), *more),
            )
            model = model or run.folder
            runs.append(run)
    return runs


# ---- planned runs, and recorded ones ----

LINE = ("part", "data set", "trainer", "recipe", "shots")  # columns of a table of planned runs


def default_output(protocol: str) -> str:
    """Folder of a protocol's runs."""
    return f"output/{PROTOCOLS[protocol].get('output', protocol)}"


def is_recorded(run: PlannedRun) -> bool:
    return os.path.isfile(f"{run.folder}/{RECORD_FILE}")


def by_line(runs: Iterable[PlannedRun]) -> dict[tuple[str | int, ...], list[PlannedRun]]:
    """Group the runs by a table's columns ``LINE``; those of a group differ in their seed only."""
    lines: dict[tuple[str | int, ...], list[PlannedRun]] = {}
    for run in runs:
        shots = run.shots if run.has_sample else ""
        lines.setdefault((run.part, run.dataset, run.trainer, run.name, shots), []).append(run)
    return lines


def seeds_of(runs: Iterable[PlannedRun]) -> str:
    return " ".join(str(run.seed) for run in runs)

"""The runs that protocols consist of: which are asked for, which are done, which another protocol has made, and what comes of them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY
from tabulate import tabulate
from yacs.config import CfgNode

from analysis.ablation import collect_ablations, render_ablations
from protocols.arguments import build_config, config_and_rules
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS, PROTOCOLS, Run, plan
from protocols.recipes import Rule
from results.curve import draw_curves
from results.render import render_all
from results.runs import collect
from results.table import tables
from trainers.common.errors import UserError, nearest
from trainers.common.fingerprints import data_name, split_hash
from trainers.common.record_file import FILE_NAME, Record
from trainers.common.record_file import read_record as read_record_file
from trainers.engine.checkpoint import OTHER_IMAGES, changes

FOLDERS = {
    "xd": "transfer",
    "dg": "transfer",
    "open": "base2new",
}  # protocols that share a training; the others: the protocol's name
# Trainings on all classes that two protocols ask for, by the names of the folders: the same run where recipe and shots are the same.
TWINS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("transfer", "train_source"): ("fewshot", "train_all"),
    ("fewshot", "train_all"): ("transfer", "train_source"),
}


@dataclass(frozen=True)
class Request:
    """The runs of one protocol for all of these trainers, data sets, numbers of shots and seeds.

    Attributes:
        protocol: one of ``PROTOCOLS``.
        trainers: registered names; datasets: names of files of configs/datasets; seeds: numbers from 0 on.
        output: folder of the runs.
        shots: training images a class; None: the recipe's or the protocol's own.
        config: name of a recipe, rows: names of an ablation's rows, see ``protocols.plan``.
        root: folder of the data sets.
        options: KEY, VALUE, KEY … over all config files.
    """

    protocol: str
    trainers: Sequence[str]
    datasets: Sequence[str]
    seeds: Sequence[int]
    output: str
    shots: Sequence[int] | None = None
    config: str | None = None
    rows: Sequence[str] | None = None
    root: str = "data"
    options: Sequence[str] = ()

    def runs(self) -> list[Run]:
        """The runs, each after the one whose prompts it tests.

        Raises:
            UserError: unknown trainer, what doesn't fit the protocol, or see ``protocols.plan``.
        """
        known = TRAINER_REGISTRY.registered_names()
        for trainer in self.trainers:
            if trainer not in known:
                raise UserError(
                    f"unknown trainer {trainer!r}{nearest(trainer, known)}; known: {', '.join(sorted(known))}"
                )
            if self.protocol == "zeroshot" and getattr(
                TRAINER_REGISTRY.get(trainer), "learns", True
            ):
                raise UserError(
                    f"zeroshot is for trainers that learn nothing, {trainer} does: its own protocols are {', '.join(PROTOCOLS[:-1])}"
                )
        if self.shots and min(self.shots) < 1 or min(self.seeds) < 0:
            raise UserError("--shots must be at least 1 and --seeds at least 0")
        if self.rows and self.protocol not in ("ablation", "factors"):
            raise UserError(
                f"--rows are for --protocol ablation and factors, {self.protocol} has none: leave it out"
            )
        return [
            self.named(run)
            for dataset in self.datasets
            for trainer in self.trainers
            for run in plan(
                self.protocol,
                trainer,
                dataset,
                self.shots,
                self.seeds,
                self.output,
                self.config,
                self.rows,
            )
        ]

    def named(self, run: Run) -> Run:
        """The run; for one's own images, in a folder named after the images' folder."""
        if run.dataset != "image_folder":
            return run
        own = os.path.join(os.sep, data_name("ImageFolder", self.root), "shots_")
        folder, model = (
            path and path.replace(os.path.join(os.sep, "image_folder", "shots_"), own)
            for path in (run.folder, run.model)
        )
        return replace(run, folder=folder or "", model=model)

    def arguments(self, run: Run) -> list[str]:
        """Arguments of ``train.py`` for one of the runs."""
        return run.arguments(self.root, self.options)

    def wanted_config(self, run: Run) -> CfgNode:
        """The config that one of the runs would have.

        Raises:
            UserError: see ``protocols.arguments.build_config``; also for a setting that contradicts the protocol.
        """
        return self.config_and_rules(run)[0]

    def config_and_rules(self, run: Run) -> tuple[CfgNode, list[Rule]]:
        """``wanted_config``, and those of the recipe's rules that hold for the run."""
        cfg, rules = config_and_rules(parse_arguments(self.arguments(run)))
        if run.model and cfg.TRAINER[run.trainer.upper()].get("CSC"):
            raise UserError(
                f"TRAINER.{run.trainer.upper()}.CSC gives each class a context of its own: those of the classes it was trained on "
                f"say nothing of others, so {self.protocol} can't be run with it"
            )
        return cfg, rules

    def plan(self) -> str:
        """A table of the runs, those that differ in their seed only in one line, with what the recipe's rules make of each."""
        rows: dict[tuple[object, ...], list[int]] = {}
        for run in self.runs():
            part, data, _, trainer, name = run.folder.split(os.sep)[-6:-1]
            training: tuple[object, ...] = ("", "", "", "")
            if run.model:
                training = ("", "", "", f"tests {run.model.split(os.sep)[-6]}")
            elif getattr(TRAINER_REGISTRY.get(trainer), "learns", True):
                cfg, rules = self.config_and_rules(run)
                training = (
                    cfg.OPTIM.MAX_EPOCH,
                    cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
                    cfg.OPTIM.LR,
                    "; ".join(map(str, rules)),
                )
            rows.setdefault((part, data, trainer, name, run.shots or "", *training), []).append(
                run.seed
            )
        heads = (
            "part",
            "data set",
            "trainer",
            "recipe",
            "shots",
            "epochs",
            "batch",
            "learning rate",
            "rules, a later one wins",
            "seeds",
        )
        return (
            tabulate(
                [(*row, " ".join(map(str, seeds))) for row, seeds in rows.items()],
                heads,
                "simple",
                disable_numparse=True,
            )
            + "\n"
        )


def default_output(protocol: str, output: str = "output") -> str:
    """Folder of a protocol's runs below that of all."""
    return os.path.join(output, FOLDERS.get(protocol, protocol))


def read_record(folder: str) -> Record | None:
    """The run record, or None where the run is not done."""
    path = os.path.join(folder, FILE_NAME)
    if not os.path.isfile(path):
        return None
    return read_record_file(path)


def is_done(run: Run, cfg: CfgNode) -> bool:
    """Whether the run need not be made again.

    Raises:
        UserError: its folder holds a run with other settings.
    """
    record = read_record(run.folder)
    if record is None:
        return False
    changed = changes(cfg, record)
    if (
        not changed
        and cfg.DATASET.NAME == "ImageFolder"
        and record["split_hash"]
        != own_images(
            cfg.DATASET.ROOT,
            cfg.SEED,
            cfg.DATASET.NUM_SHOTS,
            cfg.DATASET.SUBSAMPLE_CLASSES,
            cfg.DATALOADER.BROKEN_IMAGES,
        )
    ):
        changed = [OTHER_IMAGES]
    if changed:
        raise UserError(
            f"{run.folder} holds a run with other settings ({'; '.join(changed[:3])}): give another --output, or delete that folder"
        )
    if run.model:  # it may have tested prompts that have been trained again since
        trained = read_record(run.model)
        return trained is not None and all(
            trained[key] == record[key] for key in ("prompts_hash", "backbone_hash")
        )
    return True


@cache
def own_images(root: str, seed: int, shots: int, classes: str, broken: str) -> str:
    """``split_hash`` of one's own images, which can change from one run to the next; published data sets don't."""
    cfg = build_config(
        parse_arguments(
            [
                "--trainer",
                "ZeroshotCLIP",
                "--dataset-config-file",
                os.path.join(CONFIGS, "datasets", "image_folder.yaml"),
                "--root",
                root,
                "--seed",
                str(seed),
                "DATASET.NUM_SHOTS",
                str(shots),
                "DATASET.SUBSAMPLE_CLASSES",
                classes,
                "DATALOADER.BROKEN_IMAGES",
                broken,
            ]
        )
    )
    return split_hash(build_dataset(cfg))


def twin(run: Run) -> Run | None:
    """The run in the folder where another protocol would have made the same run; None where none does."""
    parts = os.path.abspath(run.folder).split(os.sep)
    other = TWINS.get(
        tuple(parts[-7:-5])
    )  # <protocol's folder>/<part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>
    return (
        None
        if other is None
        else replace(run, folder=os.sep.join([*parts[:-7], *other, *parts[-5:]]))
    )


def take_over(run: Run, cfg: CfgNode) -> str | None:
    """Copies the run from where another protocol has made it; returns that folder, None where none has the same settings."""
    other = twin(run)
    if other is None or os.path.exists(run.folder):
        return None
    try:
        if not is_done(other, cfg):
            return None
    except UserError:  # it has other settings
        return None
    os.makedirs(os.path.dirname(run.folder), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(run.folder)) as temporary:
        copy = shutil.copytree(other.folder, os.path.join(temporary, "copy"))
        os.rename(copy, run.folder)
    return other.folder


def chains(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs as lists that don't depend on each other: each a training and the tests of its prompts, or a test alone.

    A training that another protocol asks for as well stands in the same list as that one, which can then be copied.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        trained = run if run.model is None else replace(run, folder=run.model)
        other = twin(trained)
        found.setdefault(
            min(os.path.abspath(trained.folder), other.folder if other else "~"), []
        ).append(run)
    return list(found.values())


def make(run: Run, cfg: CfgNode, start: Callable[[], object], say: Callable[[str], object]) -> None:
    """Makes a run, unless it is done or can be copied.

    Args:
        cfg: its config; start: called without arguments to make it; say: called with a line on what is done.

    Raises:
        UserError: its folder holds a run with other settings, the prompts that it tests are not trained yet, or ``start`` failed.
    """
    if is_done(run, cfg):
        say(f"done already: {run.folder}")
    elif run.model and read_record(run.model) is None:
        raise UserError(f"{run.model} is not trained to its end: run the protocol's training first")
    elif (source := take_over(run, cfg)) is not None:
        say(f"the same run is done in {source}, copied to {run.folder}")
    else:
        say(run.folder)
        start()


def summary(protocol: str, output: str) -> tuple[str, list[str]]:
    """A protocol's tables as text; draws the few-shot curve.

    Returns:
        the text, and the paths of what was drawn.

    Raises:
        UserError: no run there is done.
    """
    if protocol == "ablation":
        return render_ablations(collect_ablations(output)), []
    found = tables(collect(output))
    curves = (
        draw_curves(next(table for table in found if table.title.startswith("few-shot")), output)
        if protocol == "fewshot"
        else []
    )
    return render_all(
        [table for table in found if len(table.frame)]
    ), curves  # without base-to-new's where only its trainings are done

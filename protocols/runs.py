"""The runs that protocols consist of: which are asked for, which are done, which another protocol has made, and what comes of them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY
from tabulate import tabulate
from yacs.config import CfgNode

from analysis.ablation import collect_ablations, render_ablations
from protocols.arguments import build_config, config_and_rules
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS, PROTOCOLS, Run, plan, stem
from protocols.recipes import Rule
from results.curve import draw_curves
from results.render import render_all
from results.runs import collect
from results.table import tables
from trainers.common.errors import UserError, nearest
from trainers.common.fingerprints import split_hash
from trainers.common.record_file import FILE_NAME, Record
from trainers.common.record_file import read_record as read_record_file
from trainers.engine.checkpoint import OTHER_IMAGES, changes

FOLDERS = {
    "xd": "transfer",
    "dg": "transfer",
    "open": "base2new",
}  # protocols that share a training; the others: the protocol's name


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
            run
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
                self.root,
            )
        ]

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
        runs = self.runs()
        trained = {run.folder: run.part for run in runs}
        for run in runs:
            trainer = run.trainer
            training: tuple[object, ...] = ("", "", "", "")
            if run.model:
                training = ("", "", "", f"tests {trained[run.model]}")
            elif getattr(TRAINER_REGISTRY.get(trainer), "learns", True):
                cfg, rules = self.config_and_rules(run)
                training = (
                    cfg.OPTIM.MAX_EPOCH,
                    cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
                    cfg.OPTIM.LR,
                    "; ".join(map(str, rules)),
                )
            name, shots = run.row or stem(run.recipe), run.shots if run.has_sample else ""
            row = (run.part, run.dataset, trainer, name, shots, *training)
            rows.setdefault(row, []).append(run.seed)
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


def chains(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs as lists that don't depend on each other: each a training and the tests of its prompts, or a test alone."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.model or run.folder, []).append(run)
    return list(found.values())


def make(run: Run, cfg: CfgNode, start: Callable[[], object], say: Callable[[str], object]) -> None:
    """Makes a run, unless it is done.

    Args:
        cfg: its config; start: called without arguments to make it; say: called with a line on what is done.

    Raises:
        UserError: its folder holds a run with other settings, the prompts that it tests are not trained yet, or ``start`` failed.
    """
    if is_done(run, cfg):
        say(f"done already: {run.folder}")
    elif run.model and read_record(run.model) is None:
        raise UserError(f"{run.model} is not trained to its end: run the protocol's training first")
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

"""The runs that ``run.py`` is asked for, which of them a shard makes, and how they are shown.
A plan is answered at once, without torch, unless options name a trainer's settings."""

import argparse
import ast
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from dassl.config import get_cfg_default
from tabulate import tabulate

from trainers import METHODS, method_class
from trainers.common.config_files import check_range, check_values, leaves, merge, settings_in
from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.files import is_there
from trainers.common.recipes import EMBEDDED, Recipe, SettingsRule, check_known
from trainers.common.setting import Settings, under
from trainers.settings import add_run_settings, settings_of_run

from .hours import FILE, Steps
from .plan import (
    LINE,
    PlannedRun,
    by_line,
    conditions_of,
    default_output,
    is_recorded,
    plan,
    seeds_of,
)

PLAN_COLUMNS = {
    "CLIP": "MODEL.BACKBONE.NAME",
    "epochs": "OPTIM.MAX_EPOCH",
    "batch": "DATALOADER.TRAIN_X.BATCH_SIZE",
    "learning rate": "OPTIM.LR",
}  # column of a plan → key


def plan_runs(args: argparse.Namespace) -> list[PlannedRun]:
    """The runs that ``run.py``'s arguments ask for, each after the one whose prompts it tests, and
    each once.

    Raises:
        UserError: unknown trainer, an argument that doesn't fit the protocol, or as ``plan``.
    """
    if args.shots and min(args.shots) < 1 or min(args.seeds) < 0:
        raise UserError("--shots must be at least 1 and --seeds at least 0")
    if args.shards is not None and args.shards < 1:
        raise UserError(f"--shards is {args.shards}, it must be at least 1")
    if args.output:
        is_there("--output", args.output, is_folder=True)
    names = ("shots", "seeds", "config", "rows", "root", "backbone")
    options = {name: getattr(args, name) for name in names}
    runs = []
    for protocol, dataset, trainer in product(args.protocol, args.dataset, args.trainer):
        if args.rows and protocol not in ("ablation", "factors"):
            raise UserError(
                f"--rows are for --protocol ablation and factors, {protocol} has none: leave it out"
            )
        check_known("trainer", trainer, METHODS)
        output = args.output or default_output(protocol)
        runs += plan(protocol, trainer, dataset, output=output, **options)
    return shard(dict.fromkeys(runs), *args.shard)


def chains(runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """The runs as lists that don't depend on each other: each a training and the tests of its
    prompts, or a test alone."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.model or run.folder, []).append(run)
    return list(groups.values())


def shard(runs: Iterable[PlannedRun], number: int, count: int) -> list[PlannedRun]:
    """Shard ``number`` of ``count``, from 1 on: each ``count``-th training with its tests, whatever
    of them is done."""
    return [run for chain in chains(runs)[number - 1 :: count] for run in chain]


def show_plan(args: argparse.Namespace) -> str:
    """Return a table of the runs, seeds in one line: each with the settings by the recipe's
    rules, and its state.

    Raises:
        UserError: as ``plan_runs`` and ``check_options``.
    """
    runs = plan_runs(args)
    options = settings_in(args.opts, "options after --")
    check_options(options)
    parts = {run.folder: run.part for run in runs}
    steps = Steps.read()
    hours = 0.0
    unmeasured = 0
    rows = []
    for line, group in by_line(runs).items():
        run = group[0]
        recipe = Recipe.read(run.recipe)
        rules = recipe.holding(**conditions_of(run.protocol, run.dataset_file, run.shots))
        settings = settings_of(run, recipe, rules, options)
        shown = [settings[key] for key in PLAN_COLUMNS.values()]
        done = [one for one in group if is_recorded(one)]
        if run.model or not recipe.is_trained:
            shown[1:] = "", "", ""  # the CLIP alone
        else:
            missing = len(group) - len(done)
            each = steps.hours(run, settings)
            if each is None:
                unmeasured += missing
            else:
                hours += missing * each
        held = held_in_words(run, rules, parts)
        rows.append((*line, *shown, held, seeds_of(group), seeds_of(done)))
    heads = [*LINE, *PLAN_COLUMNS, "rules, a later one wins", "seeds", "done"]
    table = tabulate(rows, heads, "simple", disable_numparse=True)
    return f"{table}\n{progress_in_words(runs, steps, hours, unmeasured)}\n"


def held_in_words(run: PlannedRun, rules: Iterable[SettingsRule], parts: Mapping[str, str]) -> str:
    """Return the rules that hold for a run, in words; for a test of another run's prompts the part that trains these,
    and the rules for its target.

    parts: folder of a run → its part.
    """
    if not run.model:
        return "; ".join(map(str, rules))
    of_targets = [str(rule) for rule in rules if "target" in rule.conditions]
    return "; ".join([f"tests {parts[run.model]}", *of_targets])


def progress_in_words(
    runs: Sequence[PlannedRun], steps: Steps, hours: float, unmeasured: int
) -> str:
    """Say how many runs are done, and the hours of steps that the missing ones take.

    unmeasured: missing trainings without a measured step.
    """
    done = sum(map(is_recorded, runs))
    text = (
        f"{counted(len(runs), 'run')}: {done} done, {len(runs) - done} missing. Weights of other CLIPs than {EMBEDDED} are "
        f"downloaded once, and a GPU is advisable; to try it without: --backbone {EMBEDDED}"
    )
    if steps.device:
        text += f"\nTraining what is missing takes {hours:,.1f} hours of steps on one {steps.device} (by {FILE})"
    if steps.device and unmeasured:
        text += f", without {counted(unmeasured, 'training')} of which no step was measured"
    return text


def settings_of(
    run: PlannedRun, recipe: Recipe, rules: Iterable[SettingsRule], options: Mapping[str, str]
) -> dict[str, object]:
    """Return key → value of all settings of a run: Dassl's own, then the recipe's, its rules', and the options."""
    settings = {**dict(leaves(get_cfg_default())), **recipe.settings}
    for rule in rules:
        settings |= rule.settings
    if run.backbone:
        settings[PLAN_COLUMNS["CLIP"]] = run.backbone
    return {**settings, **options, **settings_in(run.settings, "settings")}


def check_options(options: Mapping[str, str]) -> None:
    """Check KEY → value of trainers and of drawn data sets, each by itself.

    Raises:
        UserError: a key is unknown, or a value is of another type or out of its range.
    """
    cfg = get_cfg_default()
    add_run_settings(cfg)
    extensions = extensions_with(options)
    for key, value in options.items():
        if key in extensions:
            check_range(key, read_value(value), extensions[key].takes)
        elif not key.startswith(("TRAINER.", "DATASET.FACTORS.")) or key == "TRAINER.NAME":
            merge(cfg, {key: value}, "options after --")
    check_values(cfg, settings_of_run(cfg))


def extensions_with(keys: Iterable[str]) -> Settings:
    """The settings in the nodes of trainers, ``TRAINER.<NAME>``, and data sets that keys are in. Only
    the modules of these are imported, with torch, which takes seconds."""
    nodes = {key.rpartition(".")[0] for key in keys}
    found: Settings = {}
    if "DATASET.FACTORS" in nodes:
        from datasets.drawn import factors

        found |= under("DATASET.FACTORS", factors.SETTINGS)
    for name in METHODS:
        node = f"TRAINER.{name.upper()}"
        if node in nodes:
            found |= under(node, method_class(name).declared)
    return found


def read_value(text: str) -> object:
    """Read a text as a Python literal; any other text stays as it is, as yacs has it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

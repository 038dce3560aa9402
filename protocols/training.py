"""Trains or tests one run: the command that CoOp's users know, arguments unchanged.

    python train.py --trainer CDC --config-file configs/trainers/CDC/tiny.yaml \
        --dataset-config-file configs/datasets/openmoji.yaml --root data --seed 1 --output-dir output/my_run
    python train.py --trainer CDC --images my_folder      # a folder of class folders; what it stands for: expand_images

Input that can't work ends with one line on standard error and exit code 2. A run that is killed goes on by the same command, to the same
numbers; one that Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 (Slurm's warning) asks to stop writes a checkpoint and exits with code 75, which means: start
it again. A second Ctrl-C ends it at once. A finished run is done already.
"""
import argparse
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import dassl
import torch
import torchvision.transforms
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, build_trainer
from dassl.utils import Registry, collect_env_info, set_random_seed, setup_logger
from yacs.config import CfgNode

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.base import TargetDataset
from datasets.drawn.factors import add_factors_config
from protocols import own_images
from protocols.plan import CONFIGS, merge_rules, recipe_path
from protocols.recipes import EXPERIMENTS, KEY, Rule
from trainers import METHODS, config_function, distributed
from trainers.common.config_files import check_types, merge
from trainers.common.console import FileOnly, log_to_stdout
from trainers.common.errors import UserError, exit_code, nearest
from trainers.common.files import remove_leftovers
from trainers.common.fingerprints import data_name
from trainers.common.interruption import REQUEUE, Interrupted, at_once, noticed
from trainers.common.locks import FILE_NAME as LOCK
from trainers.common.locks import only_writer
from trainers.common.record_file import remove_record
from trainers.settings import add_run_settings

log = logging.getLogger("train")

CONFIG_FUNCTIONS = [config_function(method) for method in METHODS]  # registers the trainers
SHOTS = 16  # training images a class of one's own folder


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="", help="folder of the data sets")
    parser.add_argument("--output-dir", default="", help="folder of this run: log, checkpoints, results.json")
    parser.add_argument("--resume", default="", help="folder of a run to continue from (default: --output-dir)")
    parser.add_argument("--images", default="", help="your own folder of class folders, in place of --root and --dataset-config-file; "
                        "what else is not given is chosen: the trainer's recipe for the tiny CLIP or for --backbone, 16 shots, seed 1, "
                        "--output-dir output/<folder>/<trainer>/seed1")
    parser.add_argument("--seed", type=int, default=-1, help="0, 1, 2 …; negative: not seeded (with --images: 1)")
    parser.add_argument("--source-domains", nargs="+", help="Dassl's DATASET.SOURCE_DOMAINS")
    parser.add_argument("--target-domains", nargs="+", help="Dassl's DATASET.TARGET_DOMAINS")
    parser.add_argument("--transforms", nargs="+", help="Dassl's INPUT.TRANSFORMS")
    parser.add_argument("--config-file", default="", help="configs/trainers/<trainer>/<recipe>.yaml")
    parser.add_argument("--dataset-config-file", default="", help="configs/datasets/<name>.yaml")
    parser.add_argument("--protocol", choices=EXPERIMENTS, help="which of the recipe's rules hold (base2new where "
                        "DATASET.SUBSAMPLE_CLASSES is base or new, else fewshot)")
    parser.add_argument("--trainer", default="", help="a registered name: CDC, CoOp, MaPLe …")
    parser.add_argument("--backbone", default="", help="a CLIP: ViT-B/16, RN50, tiny, a file, open_clip:<model>/<weights> …")
    parser.add_argument("--head", default="", help="Dassl's MODEL.HEAD.NAME")
    parser.add_argument("--eval-only", action="store_true", help="test only")
    parser.add_argument("--model-dir", default="", help="with --eval-only: folder of the training run")
    parser.add_argument("--load-epoch", type=int, help="with --model-dir: which checkpoint (default: best or newest)")
    parser.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over all config files")
    return parser.parse_args(arguments)


def expand_images(args: argparse.Namespace) -> argparse.Namespace:
    """``--images FOLDER`` written out in the other arguments, as far as they are not given; without it the arguments as they are.

    Raises:
        UserError: no such folder, another data set is given as well, the trainer is unknown or has no recipe, or the output would be where
            it is taken for a class or takes a training's place.
    """
    if not args.images:
        return args
    folder = os.path.abspath(os.path.expanduser(args.images))
    if args.root or args.dataset_config_file:
        raise UserError("--images is a data set of its own: leave out --root and --dataset-config-file")
    if not os.path.isdir(folder):
        raise UserError(f"--images {args.images} is no folder: give the one that holds the class folders, or train and test")
    if args.eval_only and not args.output_dir:
        raise UserError("--images with --eval-only needs --output-dir: without it the test would take the place of the training")
    check_registered("trainer", args.trainer, TRAINER_REGISTRY)
    seed = args.seed if args.seed >= 0 else 1
    output = args.output_dir or os.path.join("output", os.path.basename(folder), args.trainer, f"seed{seed}")
    if os.path.abspath(output).startswith(os.path.join(folder, "")):
        raise UserError(f"the results would go to {output}, which lies in {folder}, where they pass for a class: give another --output-dir")
    return argparse.Namespace(**{
        **vars(args), "root": folder, "seed": seed, "output_dir": output,
        "dataset_config_file": os.path.join(CONFIGS, "datasets", "image_folder.yaml"),
        "config_file": args.config_file or recipe_path(args.trainer, recipe_for(args.trainer, args.backbone)),
        "opts": ["DATASET.NUM_SHOTS", str(SHOTS), *args.opts]})  # of pairs the later ones win


def recipe_for(trainer: str, backbone: str) -> str:
    """Name of the trainer's recipe for a CLIP: the one called like it (``RN50``: rn50 or rn50_text), else vit_b16; tiny without a CLIP."""
    own = (backbone or "tiny").lower().replace("-", "_").replace("/", "")
    names = (name for name in (own, f"{own}_text") if os.path.isfile(os.path.join(CONFIGS, "trainers", trainer, f"{name}.yaml")))
    return next(names, "vit_b16")


def check_registered(kind: str, name: str, registry: Registry) -> None:
    known = registry.registered_names()
    if not name:
        flag = "--trainer" if kind == "trainer" else "--dataset-config-file (or --images, a folder of your own)"
        raise UserError(f"no {kind} is given: give {flag}; known: {', '.join(sorted(known))}")
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(sorted(known))}")


def extend_config(cfg: CfgNode) -> None:
    """Adds what Dassl's defaults lack: base/new classes, broken images, kept features, checkpoints in the middle of epochs, image sizes, the factors
    of a composed set, and each trainer's own node.
    """
    add_run_settings(cfg)
    add_factors_config(cfg)
    for add_config in CONFIG_FUNCTIONS:
        add_config(cfg)


def build_config(args: argparse.Namespace) -> CfgNode:
    """Defaults, data set file, trainer file, its rules, flags, pairs: later ones win.

    Raises:
        UserError: see ``merge``; also for an unknown trainer or data set.
    """
    return config_and_rules(args)[0]


def config_and_rules(args: argparse.Namespace) -> tuple[CfgNode, list[Rule]]:
    """The config, see ``build_config``, and those of the recipe's rules that hold."""
    cfg = get_cfg_default()
    extend_config(cfg)
    defaults = cfg.clone()
    if args.dataset_config_file:
        merge(cfg, args.dataset_config_file, "data set config file")
    rules = []
    if args.config_file:
        merge(cfg, args.config_file, "config file", leave_out=KEY)
        merge(cfg, args.opts, "options after the flags")  # rules ask for the shots and the classes; below once more, over the rules
        rules = merge_rules(cfg, args.config_file, args.dataset_config_file, args.protocol)
    flags = {"root": (cfg.DATASET, "ROOT"), "output_dir": (cfg, "OUTPUT_DIR"), "resume": (cfg, "RESUME"),
             "source_domains": (cfg.DATASET, "SOURCE_DOMAINS"), "target_domains": (cfg.DATASET, "TARGET_DOMAINS"),
             "transforms": (cfg.INPUT, "TRANSFORMS"), "trainer": (cfg.TRAINER, "NAME"), "backbone": (cfg.MODEL.BACKBONE, "NAME"),
             "head": (cfg.MODEL.HEAD, "NAME")}
    for flag, (node, key) in flags.items():
        if getattr(args, flag):
            setattr(node, key, getattr(args, flag))
    if args.seed >= 2 ** 32:
        raise UserError(f"--seed is {args.seed}, it must be below {2 ** 32}")
    cfg.SEED = args.seed
    merge(cfg, args.opts, "options after the flags")
    check_types(cfg, defaults)
    check_registered("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY)
    check_registered("data set", cfg.DATASET.NAME, DATASET_REGISTRY)
    cfg.freeze()
    return cfg, rules


def run(args: argparse.Namespace) -> SimpleTrainer:
    """One run; returns the trainer.

    Raises:
        UserError: the input can't work; a folder that was made for the run is gone again if nothing but the log is in it.
    """
    args = expand_images(args)
    cfg, rules = config_and_rules(args)
    if args.no_train and args.eval_only:
        raise UserError("--no-train and --eval-only exclude each other")
    if not cfg.OUTPUT_DIR:
        raise UserError("--output-dir is missing: where shall log, checkpoints and results.json go?")
    if os.path.isfile(cfg.OUTPUT_DIR):
        raise UserError(f"--output-dir {cfg.OUTPUT_DIR} is a file, it must be a folder")
    made = folders_to_make(os.path.abspath(cfg.OUTPUT_DIR))
    console = sys.stdout
    is_left_empty = False
    try:
        with only_writer(cfg.OUTPUT_DIR) if distributed.is_first() else contextlib.nullcontext():
            if distributed.is_first():
                remove_leftovers(cfg.OUTPUT_DIR)
            try:
                return start(cfg, args, rules)
            except UserError:
                is_left_empty = distributed.is_first() and bool(made) and set(os.listdir(made[0])) <= {"log.txt", LOCK}
                if is_left_empty:
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(os.path.join(made[0], "log.txt"))
                raise
    finally:
        sys.stdout = console  # Dassl's tee to log.txt has taken its place
        if is_left_empty:
            with contextlib.suppress(OSError):  # up to the first that another run, beside this one, has put its own folder in
                for folder in made:
                    os.rmdir(folder)


def folders_to_make(path: str) -> list[str]:
    """``path`` and those of its parents that don't exist yet, innermost first."""
    made = []
    while not os.path.exists(path):
        made.append(path)
        path = os.path.dirname(path)
    return made


def start(cfg: CfgNode, args: argparse.Namespace, rules: Sequence[Rule]) -> SimpleTrainer:
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    elif distributed.count() > 1:
        set_random_seed(distributed.from_first(lambda: torch.seed() % 2 ** 32))  # not a known one, but the same in all
    if cfg.USE_CUDA and torch.cuda.is_available():
        distributed.choose_gpu()
    if distributed.is_first():
        setup_logger(cfg.OUTPUT_DIR)
    else:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    log_to_stdout()
    details = FileOnly(sys.stdout)
    log.info("Seed %s", cfg.SEED if cfg.SEED >= 0 else "not set")
    if distributed.count() > 1:
        log.info("%d processes", distributed.count())
    details.write("** Arguments **\n" + "\n".join(f"{key}: {value}" for key, value in sorted(vars(args).items())) + f"\n** Config **\n{cfg}\n")
    if distributed.is_first():  # it takes seconds
        details.write(f"** System **\n{collect_env_info()}\n")
        log.info("Config, versions and all that follows: %s", os.path.join(cfg.OUTPUT_DIR, "log.txt"))
    for rule in rules:
        log.info("Rule of the recipe: %s", rule)
    if args.images:
        log.info("Your images: %s, up to %d a class for training, recipe %s, results in %s", cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS,
                 args.config_file, cfg.OUTPUT_DIR)
        if cfg.MODEL.BACKBONE.NAME == "tiny":
            log.warning("The tiny CLIP that comes with this repository has seen small drawings only: it is for trying. For real use add "
                        "--backbone ViT-B/16 (its weights are downloaded once; a GPU is advisable)")
    torch.backends.cudnn.benchmark = torch.cuda.is_available() and cfg.USE_CUDA
    with at_once(distributed.count() == 1), contextlib.redirect_stdout(details):
        trainer: Any = build(cfg)
    data = trainer.dm.dataset
    log.info("%s: %d classes; %d images for training, %d for validation, %d for testing", data_name(cfg.DATASET.NAME, cfg.DATASET.ROOT),
             trainer.dm.num_classes, *(len(part or ()) for part in (data.train_x, data.val, data.test)))
    if args.eval_only:
        with at_once(distributed.count() == 1):
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            remove_record(cfg.OUTPUT_DIR)
            trainer.test()
    elif not args.no_train:
        if trainer.get_model_names() and isinstance(trainer.dm.dataset, TargetDataset):
            raise UserError(f"{cfg.DATASET.NAME} has test images only: train on {trainer.dm.dataset.source}, then test here with "
                            "--eval-only --model-dir")
        if is_done := distributed.from_first(trainer.is_done):
            log.info("Done already: %s; to train anew delete that folder, or give another --output-dir", cfg.OUTPUT_DIR)
        else:
            trainer.train()
        if args.images and distributed.is_first() and not (is_done and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, own_images.REPORT))):
            distributed.leave()
            with at_once():
                own_images.report(cfg, args, run)
    return trainer


def build(cfg: CfgNode) -> SimpleTrainer:
    """The trainer with its data and model.

    Raises:
        UserError: the config or the data can't work.
    """
    try:
        return build_trainer(cfg)
    except (ValueError, AssertionError) as error:
        if isinstance(error, UserError) or not raised_in_dassl(error):
            raise
        raise UserError(f"the config can't work: {' '.join(str(error).split())}") from error


def raised_in_dassl(error: BaseException) -> bool:
    """Whether Dassl itself refused (an unknown optimiser, sampler, transform …), or what it builds of the config's numbers; anything else may be a
    fault of ours."""
    file_name = os.path.realpath(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file_name.startswith(os.path.realpath(place) + os.sep)
               for module in (dassl, torch.optim, torchvision.transforms) for place in module.__path__)


def join_and_run(arguments: Sequence[str] | None) -> None:
    with distributed.joined():
        run(parse_arguments(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of a run: 0, 2 with one line on standard error for what the user can mend, or 75 if it was asked to stop."""
    try:
        with noticed():
            return exit_code(join_and_run, arguments)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return REQUEUE


if __name__ == "__main__":
    sys.exit(main())

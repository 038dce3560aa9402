"""Trains or tests one run: the command that CoOp's users know, arguments unchanged.

    python train.py --trainer CDC --config-file configs/trainers/CDC/tiny.yaml \
        --dataset-config-file configs/datasets/openmoji.yaml --root data --seed 1 --output-dir output/my_run

Input that can't work ends with one line on standard error and exit code 2.
"""
import argparse
import logging
import os
import sys

import dassl
import torch
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger

import datasets.every  # noqa: F401  (registers the data sets)
from trainers.cdc import add_cdc_config
from trainers.checkpoint import flatten
from trainers.cocoop import add_cocoop_config
from trainers.coop import add_coop_config
from trainers.errors import UserError, nearest
from trainers.ivlp import add_ivlp_config
from trainers.kgcoop import add_kgcoop_config
from trainers.maple import add_maple_config
from trainers.prograd import add_prograd_config
from trainers.promptsrc import add_promptsrc_config
from trainers.run_record import remove_record
from trainers.vpt import add_vpt_config
from trainers.zsclip import add_zeroshotclip2_config, add_zeroshotclip_config

log = logging.getLogger("train")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="", help="folder of the data sets")
    parser.add_argument("--output-dir", default="", help="folder of this run: log, checkpoints, results.json")
    parser.add_argument("--resume", default="", help="folder of a run to continue from (default: --output-dir)")
    parser.add_argument("--seed", type=int, default=-1, help="0, 1, 2 …; negative: not seeded")
    parser.add_argument("--source-domains", nargs="+", help="Dassl's DATASET.SOURCE_DOMAINS")
    parser.add_argument("--target-domains", nargs="+", help="Dassl's DATASET.TARGET_DOMAINS")
    parser.add_argument("--transforms", nargs="+", help="Dassl's INPUT.TRANSFORMS")
    parser.add_argument("--config-file", default="", help="configs/trainers/<trainer>/<recipe>.yaml")
    parser.add_argument("--dataset-config-file", default="", help="configs/datasets/<name>.yaml")
    parser.add_argument("--trainer", default="", help="a registered name: CDC, CoOp, MaPLe …")
    parser.add_argument("--backbone", default="", help="a CLIP: ViT-B/16, RN50, tiny, a file …")
    parser.add_argument("--head", default="", help="Dassl's MODEL.HEAD.NAME")
    parser.add_argument("--eval-only", action="store_true", help="test only")
    parser.add_argument("--model-dir", default="", help="with --eval-only: folder of the training run")
    parser.add_argument("--load-epoch", type=int, help="with --model-dir: which checkpoint (default: best or newest)")
    parser.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over all config files")
    return parser.parse_args(arguments)


def extend_config(cfg):
    """Adds what Dassl's defaults lack: base/new classes and each trainer's own node."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    for add_config in (add_zeroshotclip_config, add_zeroshotclip2_config, add_coop_config, add_cocoop_config, add_kgcoop_config,
                       add_prograd_config, add_vpt_config, add_ivlp_config, add_maple_config, add_promptsrc_config, add_cdc_config):
        add_config(cfg)


def merge(cfg, source, what):
    """Merges a file or a list of pairs; every way to get that wrong is the user's to hear about.

    Raises:
        UserError: file missing or not YAML, unknown key (the nearest known one is named), value of another type.
    """
    is_file = isinstance(source, str)
    if is_file and not os.path.isfile(source):
        folder, name = os.path.split(source)
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        raise UserError(f"{what} {source} is missing{nearest(name, beside)}")
    if not is_file and len(source) % 2:
        raise UserError(f"{what} must come in pairs, KEY VALUE: {' '.join(source)}")
    try:
        if is_file:
            with open(source, encoding="utf-8") as file:
                if not isinstance(yaml.safe_load(file), dict):
                    raise UserError(f"{what} {source}: it must hold lines KEY: value")
            cfg.merge_from_file(source)
        else:
            cfg.merge_from_list(source)
    except UserError:
        raise
    except (KeyError, AssertionError, AttributeError) as error:
        key = str(error.args[0] if error.args else error).rsplit(": ", 1)[-1].strip("'\"")
        full = next((name for name in (source[::2] if not is_file else []) if name.endswith(key)), key)
        raise UserError(f"{what}{' ' + source if is_file else ''}: unknown config key {full}{nearest(full, flatten(cfg))}") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{what}{' ' + source if is_file else ''}: {' '.join(str(error).split())}") from error


def build_config(args):
    """Defaults, data set file, trainer file, flags, pairs: later ones win.

    Raises:
        UserError: see ``merge``; also for an unknown trainer or data set.
    """
    cfg = get_cfg_default()
    extend_config(cfg)
    if args.dataset_config_file:
        merge(cfg, args.dataset_config_file, "data set config file")
    if args.config_file:
        merge(cfg, args.config_file, "config file")
    flags = {"root": (cfg.DATASET, "ROOT"), "output_dir": (cfg, "OUTPUT_DIR"), "resume": (cfg, "RESUME"),
             "source_domains": (cfg.DATASET, "SOURCE_DOMAINS"), "target_domains": (cfg.DATASET, "TARGET_DOMAINS"),
             "transforms": (cfg.INPUT, "TRANSFORMS"), "trainer": (cfg.TRAINER, "NAME"), "backbone": (cfg.MODEL.BACKBONE, "NAME"),
             "head": (cfg.MODEL.HEAD, "NAME")}
    for flag, (node, key) in flags.items():
        if getattr(args, flag):
            setattr(node, key, getattr(args, flag))
    cfg.SEED = args.seed
    merge(cfg, args.opts, "options behind the flags")
    for kind, name, registry in (("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY), ("data set", cfg.DATASET.NAME, DATASET_REGISTRY)):
        known = registry.registered_names()
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(sorted(known))}")
    cfg.freeze()
    return cfg


def log_to_stdout():
    """Messages of this toolbox go where Dassl's go: to the console and, through Dassl's tee, to log.txt."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def run(args):
    """One run; returns the trainer.

    Raises:
        UserError: the input can't work; a folder that was made for the run is gone again if nothing but the log is in it.
    """
    cfg = build_config(args)
    if args.no_train and args.eval_only:
        raise UserError("--no-train and --eval-only exclude each other")
    if not cfg.OUTPUT_DIR:
        raise UserError("--output-dir is missing: where shall log, checkpoints and results.json go?")
    if os.path.isfile(cfg.OUTPUT_DIR):
        raise UserError(f"--output-dir {cfg.OUTPUT_DIR} is a file, it must be a folder")
    made = folders_to_make(os.path.abspath(cfg.OUTPUT_DIR))
    console = sys.stdout
    try:
        return start(cfg, args)
    except UserError:
        if made and os.listdir(made[0]) == ["log.txt"]:
            os.remove(os.path.join(made[0], "log.txt"))
            for folder in made:
                os.rmdir(folder)
        raise
    finally:
        sys.stdout = console  # Dassl's tee to log.txt has taken its place


def folders_to_make(path):
    """``path`` and those of its parents that don't exist yet, innermost first."""
    made = []
    while not os.path.exists(path):
        made.append(path)
        path = os.path.dirname(path)
    return made


def start(cfg, args):
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout()
    log.info("Seed %s", cfg.SEED if cfg.SEED >= 0 else "not set")
    log.info("** Arguments **\n%s\n** Config **\n%s", "\n".join(f"{key}: {value}" for key, value in sorted(vars(args).items())), cfg)
    log.info("** System **\n%s", collect_env_info())
    torch.backends.cudnn.benchmark = torch.cuda.is_available() and cfg.USE_CUDA
    try:
        trainer = build_trainer(cfg)
    except (ValueError, AssertionError) as error:
        if isinstance(error, UserError) or not raised_in_dassl(error):
            raise
        raise UserError(f"the config can't work: {' '.join(str(error).split())}") from error
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        remove_record(cfg.OUTPUT_DIR)
        trainer.test()
    elif not args.no_train:
        if trainer.get_model_names() and getattr(trainer.dm.dataset, "test_only", False):
            raise UserError(f"{cfg.DATASET.NAME} has test images only: train on {trainer.dm.dataset.source}, then test here with "
                            "--eval-only --model-dir")
        trainer.train()
    return trainer


def raised_in_dassl(error):
    """Whether Dassl itself refused (an unknown optimiser, sampler, transform …); anything else may be a fault of ours."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return os.path.realpath(trace.tb_frame.f_code.co_filename).startswith(os.path.realpath(os.path.dirname(dassl.__file__)) + os.sep)


def main(arguments=None):
    """Exit code of a run: 0, or 2 with one line on standard error for input that can't work."""
    try:
        run(parse_arguments(arguments))
    except UserError as error:
        # a data loader's worker wraps the message in its own traceback: the line itself is the last one
        message = str(error).strip().splitlines()[-1].split("UserError: ")[-1]
        sys.stderr.write(f"error: {message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

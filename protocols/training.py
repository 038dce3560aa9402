"""Trains or tests one run in this process, for ``train.py``."""

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path

import torch
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from yacs.config import CfgNode

from datasets.base import TargetDataset
from trainers.common.console import FileOnly, log_to_stdout
from trainers.common.errors import UserError, blaming_config
from trainers.devices import wants_cuda
from trainers.engine.checkpoint import check_test_folder
from trainers.engine.folder import folder_of_run
from trainers.texts.classnames import check_names
from trainers.trainer import MethodTrainer

from .arguments import build_config

log = logging.getLogger("train")


def run(args: argparse.Namespace) -> MethodTrainer:
    """Make one run; return the trainer.

    Raises:
        UserError: the input can't work; the run's new folder is then removed if it holds nothing
            but the log.
    """
    cfg = build_config(args)
    if not cfg.OUTPUT_DIR:
        raise UserError("--output-dir is missing: say where log, checkpoints and results.json go")
    if args.eval_only:
        check_test_folder(args.model_dir, cfg.OUTPUT_DIR)
    console = sys.stdout
    try:
        with folder_of_run("--output-dir", cfg.OUTPUT_DIR):
            return start(cfg, args)
    finally:
        sys.stdout = console  # Dassl's tee to log.txt has taken its place


def start(cfg: CfgNode, args: argparse.Namespace) -> MethodTrainer:
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    log_to_stdout()
    details = FileOnly(sys.stdout)
    given = "\n".join(f"{key}: {value}" for key, value in sorted(vars(args).items()))
    details.write(
        f"** Arguments **\n{given}\n** Config **\n{cfg}\n** System **\n{collect_env_info()}\n"
    )
    log.info("Config, versions and all that follows: %s", os.path.join(cfg.OUTPUT_DIR, "log.txt"))
    torch.backends.cudnn.benchmark = torch.cuda.is_available() and wants_cuda(cfg)
    with contextlib.redirect_stdout(details):
        trainer = build(cfg)
        notes = check_names(
            trainer.model.backbone,
            trainer.model.classnames,
            are_fixed=True,
            are_seen=trainer.model.tells_by_images,
        )
    details.write(f"** Training images **\n{trainer.loaders.augmented}\n")
    data = trainer.dm.dataset
    what = {"recipe": Path(args.config_file).stem or None, **args.run}
    notes += trainer.loaders.images.notes
    trainer.run.evaluation.note_run(what, notes)
    trainer.run.log_images()
    if args.eval_only:
        trainer.run.test_prompts(args.model_dir, args.load_epoch)
    elif not args.no_train:
        if trainer.get_model_names() and isinstance(data, TargetDataset):
            raise UserError(
                f"{cfg.DATASET.NAME} has test images only: train on {data.source}, then test here with "
                "--eval-only --model-dir"
            )
        if trainer.run.is_done():
            log.info(
                "Done already: %s; to train again, delete that folder, or give another --output-dir",
                cfg.OUTPUT_DIR,
            )
        else:
            trainer.train()
    return trainer


def build(cfg: CfgNode) -> MethodTrainer:
    """Return the trainer with its data and model.

    Raises:
        UserError: the config or the data can't work.
    """
    with blaming_config():
        trainer = build_trainer(cfg)
    assert isinstance(trainer, MethodTrainer)
    return trainer

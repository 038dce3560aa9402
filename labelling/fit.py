"""The one road from pictures to a run: ``train.py --images``, ``cdc-train`` and
``PromptedClassifier.fit`` go it, without Dassl."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy
import torch
from tqdm import tqdm
from yacs.config import CfgNode

from trainers.common.console import counted, logged_to, show_messages
from trainers.common.errors import UserError
from trainers.common.fingerprints import data_name
from trainers.common.record_file import RECORD_FILE, read_record
from trainers.data.images import Images, paths_of
from trainers.data.random_state import seed_all
from trainers.devices import device_of, wait_for
from trainers.engine.folder import LOG, folder_of_run
from trainers.engine.run import Run
from trainers.engine.run_record import gpu_facts, versions
from trainers.engine.scoring import SplitAnswers
from trainers.learners.features import FeatureMethod, is_feature_classifier
from trainers.method import Batches
from trainers.prompting.backbone import Backbone

from .cross_fit import FeatureSet, cross_fit
from .encode import Encoded, encode, learn_features
from .familiar import FAMILIAR_FILE, fit_familiar, has_near, is_kept
from .own_run import build_run, complete, config_of_images
from .request import LOGGERS, OwnRun, check_images
from .rounds import REFIT, begin_round, end_round, progress_said
from .task import task_of

log = logging.getLogger(__name__)
PROBES = 8  # images of the pass from which a training's time is estimated


def fit_folder(asked: OwnRun) -> str:
    """Makes the run of a folder of class folders, if it is not done, and returns the folder of what
    labels images (``make_asked``).

    Raises:
        UserError: the input can't work.
    """
    with open_run(asked) as run:
        folder = make_asked(run, asked)
        if sentence := progress_said(run.cfg.OUTPUT_DIR):
            log.info("%s", sentence)
        return folder


@contextlib.contextmanager
def open_run(
    asked: OwnRun,
    others: Iterable[str] = (),
    loggers: Sequence[logging.Logger] = LOGGERS,
    images: Images | None = None,
    backbone: Backbone | None = None,
    *,
    can_fold: bool = True,
) -> Iterator[Run]:
    """Yield the requested run, to train it or to test with it.

    Until the block ends, its folder is locked, and messages also go into its ``log.txt``.

    Args:
        others: folders of runs, "" for none, whose trainer and CLIP are taken where none is given.
        loggers: whose messages go into ``log.txt``.
        images, backbone, can_fold: as in ``build_run``.

    Raises:
        UserError: the input can't work.
    """
    check_images(asked.images)
    show_messages(*LOGGERS)
    asked, reasons = complete(asked, [*filter(None, others), asked.folder])
    cfg = config_of_images(asked)
    folder = asked.folder
    with folder_of_run("the output folder", folder, [FAMILIAR_FILE]), searching_convolutions():
        path = os.path.join(folder, LOG)
        with logged_to(path, *loggers) as file:
            given = "\n".join(f"{key}: {value}" for key, value in vars(asked).items())
            file.write(
                f"** Asked for **\n{given}\n** Config **\n{cfg}\n** System **\n{machine(cfg)}\n"
            )
            log.info("Config, versions and all that follows: %s", path)
            seed_all(asked.seed)
            shots = cfg.DATASET.NUM_SHOTS
            most = (
                f"up to {shots} training images per class" if shots >= 1 else "all training images"
            )
            if asked.multi_label:
                log.info("A picture may have several labels, or none (--multi-label)")
            log.info(
                "Your images: %s, %s, recipe %s, results in %s",
                asked.images,
                most,
                asked.recipe,
                folder,
            )
            for sentence in reasons:
                log.info("%s", sentence)
            task = task_of(asked.multi_label)
            run = build_run(cfg, task, asked.recipe, images, backbone, can_fold)
            file.write(f"** Training images **\n{run.loaders.augmented}\n")
            log_images(run)
            yield run


def log_images(run: Run) -> None:
    """Says how many images there are."""
    images = run.loaders.images
    if not images.is_tested_in_folds:
        run.log_images()
        return
    log.info(
        "%s: %d classes; %d images: all are trained on, and each is tested by %d folds without it",
        data_name(run.cfg.DATASET.NAME, run.cfg.DATASET.ROOT),
        len(images.classnames),
        len(images.test),
        images.folds,
    )


def make(run: Run) -> None:
    """Makes a run, if it is not done; where its folder has a round on other pictures, the next one."""
    if is_done(run):
        end_round(run)  # which a killed command may have left out
        log.info(
            "Done already: %s; to train again, delete that folder, or give another output folder",
            run.cfg.OUTPUT_DIR,
        )
        return
    begin_round(run, task_of(bool(run.loaders.images.truth)))
    method = run.method
    if is_feature_classifier(method) and run.loaders.images.folds:
        make_by_folds(run, method)
    else:
        if method.learns_in_epochs:
            log.info("Training takes up to %s", counted(most_minutes(run), "minute"))
        if method.learner is not None:
            run.prepare()
        run.train()
        end(run)
    end_round(run)


def is_done(run: Run) -> bool:
    """Return whether the run's folder holds all that it would leave."""
    folder = run.cfg.OUTPUT_DIR
    return run.is_done() and is_kept(folder, read_record(f"{folder}/{RECORD_FILE}"))


def end(run: Run) -> None:
    """Keep the training images of a run that was trained in epochs, or not at all, and test it."""
    known = encode(run, run.loaders.images.train_x)
    keep_familiar(run, known)
    run.finish()


def keep_familiar(run: Run, known: Encoded) -> numpy.ndarray:
    """Keep the training images of a run, so that others can be told from them; return how familiar the kept
    ones are to those of other groups (``Familiar.own_p_values``)."""
    images = run.loaders.images
    groups = images.groups_of(paths_of(images.train_x))
    familiar = fit_familiar(known.features.numpy(), known.looks, groups, run.cfg.SEED)
    run.evaluation.keep_file(FAMILIAR_FILE, familiar.arrays())
    return familiar.own_p_values()


def make_asked(run: Run, asked: OwnRun) -> str:
    """Make a run and, with ``asked.refit``, a second training on all of its images; return the folder
    that labels images: the run's, or the second training's.

    Raises:
        UserError: the method can't be trained once more.
    """
    own: str = run.cfg.OUTPUT_DIR
    if not asked.refit:
        make(run)
        return own
    check_refit(run)
    images = run.loaders.images
    parts = [*images.train_x, *images.val, *images.test]
    every = sorted({item.impath: item for item in parts}.values(), key=lambda item: item.label)
    folder = os.path.join(own, REFIT)
    note = (
        f"The accuracy and what is promised (--max-error) are of the training on {len(images.train_x)} images; {folder} "
        f"is trained on all {len(every)}, and not tested"
    )
    run.evaluation.notes = [*run.evaluation.notes, note]
    make(run)
    run.load(own)
    fitted = run.method.learned.state_dict()
    again = replace(asked, folder=folder, settings={**asked.settings, "TEST.NO_TEST": True})
    whole = replace(images, train_x=every, val=(), test=(), whole_val=())
    with open_run(again, [own], images=whole) as other:
        other.evaluation.notes = [note]
        log.info("Training takes up to %s", counted(most_minutes(other), "minute"))
        other.prepare()
        other.train()
        # calibration is copied: no unseen image is left to fit it
        calibrated = {name: fitted[name] for name in other.method.calibrated}
        other.method.learned.load_state_dict(calibrated, strict=False)
        other.checkpoints.save_prompts_again()
        end(other)
    return folder


def check_refit(run: Run) -> None:
    """Check that a run can be trained once more on all images.

    Raises:
        UserError: the method learns nothing in epochs, or needs validation images for its best epoch.
    """
    if not run.method.learns_in_epochs:
        raise UserError(
            f"--refit is of trainers that learn in epochs, such as CDC, and {run.name} uses all images already: leave it out"
        )
    if run.cfg.TEST.FINAL_MODEL == "best_val":
        raise UserError(
            "--refit leaves no validation images, which TEST.FINAL_MODEL best_val chooses its epoch by: leave one of them out"
        )


def make_by_folds(run: Run, method: FeatureMethod) -> None:
    """Make the run of a classifier of image features: fit it to all training images, and answer each of
    them by a classifier that has not seen its fold. Where no images are held out these answers are the
    test.
    """
    run.prepare()
    started = time.monotonic()
    looks = learn_features(run)
    answered = out_of_fold(run, method)
    run.end_without_epochs(time.monotonic() - started)
    images = run.loaders.images
    paths = paths_of(images.train_x)
    features = torch.stack([run.loaders.features[path] for path in paths])
    known = Encoded(features, numpy.stack([looks[path] for path in paths]))
    p_values = keep_familiar(run, known)
    if len(p_values) == len(paths):  # of more no picture is asked whether it is one of the kept
        answered.answers.unfamiliar = torch.from_numpy(p_values)
    if images.is_tested_in_folds:
        if images.found_in_part:
            is_near = has_near(features.numpy(), images.groups_of(paths))
            answered = answered._replace(is_near=is_near)
        run.evaluation.measure(answered, "test")
        run.evaluation.write_record()
    else:
        run.evaluation.keep_answers(answered, "train")
        run.finish()


@torch.no_grad()
def out_of_fold(run: Run, method: FeatureMethod) -> SplitAnswers:
    """Fits a classifier to the training images (``cross_fit``)."""
    method.eval()
    images = run.loaders.images
    task = task_of(bool(images.truth))
    seed = run.cfg.SEED

    def looking(augmented: bool = False) -> Batches:
        shown = run.training_images(augmented=augmented)
        return tqdm(shown, "Looking at the images", mininterval=1, delay=2, dynamic_ncols=True)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the same views where a killed run is resumed
        views, labels = method.views_of(looking)
        shown = method.shown_features(looking, views)
    paths = paths_of(images.train_x)
    fold = task.folds(images, paths, labels, seed)
    known = FeatureSet(views, shown, task.target(images, paths, labels), fold)
    title = f"Fitting {run.name}"
    with tqdm(desc=title, unit=" settings", delay=2, mininterval=1, dynamic_ncols=True) as tried:
        answers = cross_fit(method, task, known, tried.update)
    answers.check_finite()
    figures = method.learned_figures().items()
    found = ", ".join(f"{name} {value:.3g}" for name, value in figures)
    log.info("%s is fitted to the features of %d images: %s", run.name, len(labels), found)
    return SplitAnswers(answers, labels.cpu(), paths, fold)


def most_minutes(run: Run) -> int:
    """Return the minutes that a training takes at most: a step costs up to three passes, forward and back. One
    is timed, the second one, to its end on the device."""
    method = run.method
    optim = run.cfg.OPTIM
    images = torch.zeros(1, PROBES, 3, *run.cfg.INPUT.SIZE, device=method.device)
    method.eval()
    with torch.no_grad(), method.towers.autocast():
        encoded = method.encode()
        method.answer(images, encoded).cpu()  # a GPU is slow at first
        started = time.perf_counter()
        encoded = method.encode()
        wait_for(method.device)
        middle = time.perf_counter()
        method.answer(images, encoded)
        wait_for(method.device)
    image = (time.perf_counter() - middle) / PROBES
    method.train()
    steps = optim.MAX_EPOCH * len(run.loaders.train)
    training = optim.MAX_EPOCH * len(run.loaders.images.train_x)
    shown = training * len(run.loaders.views) / steps
    minutes: int = math.ceil(steps * 3 * (middle - started + shown * image) / 60)
    return minutes


def machine(cfg: CfgNode) -> str:
    """Describe the packages and the run's GPU, which numbers depend on, in lines."""
    known = "\n".join(f"{name}: {version}" for name, version in versions().items())
    gpu = gpu_facts(device_of(cfg))  # of no other: asking for its name opens it
    built = f"{torch.__config__.show()}{torch.__config__.parallel_info()}"
    return f"{known}\nGPU: {gpu or 'none'}\n{built}"


@contextlib.contextmanager
def searching_convolutions() -> Iterator[None]:
    """Lets cuDNN look for the fastest convolutions, to the end of the block."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = torch.cuda.is_available()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before

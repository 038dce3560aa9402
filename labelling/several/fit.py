"""The road from pictures with several labels to a run: all are trained on, and each is answered by what
was fitted without its fold, which is the test."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy
import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from trainers.common.console import counted, first_few, logged_to, show_messages
from trainers.common.errors import UserError
from trainers.common.files import file_hash, write_arrays, write_text
from trainers.common.fingerprints import image_name
from trainers.common.image_files import Seen, look_through
from trainers.common.readers import read_arrays
from trainers.common.record_file import (
    FILE_NAME,
    FORMAT,
    SEVERAL,
    Record,
    answers_file,
    described,
    gives_several,
    read_record,
)
from trainers.common.same_run import OTHER_IMAGES, changes, config_of_run
from trainers.data.kept import Kept
from trainers.engine.checkpoint import MODEL_NAME, epoch_name, write
from trainers.engine.folder import LOG, folder_of_run
from trainers.engine.run_record import git_commit, versions
from trainers.engine.saved_run import method_of
from trainers.evaluation.label_sets import Measures, measure_label_sets
from trainers.prompting.hashes import tensor_hash

from ..cross_fit import stratified_folds
from ..defaults import completed
from ..fit import machine
from ..folders.groups import note_on_partial
from ..folders.label_sets import LabelSets, check_occurring, read_label_sets
from ..folders.look_alikes import look_alikes, share_partial
from ..folders.own_images import FOLDS
from ..folders.pictures import Picture
from ..own_run import config_of_images
from ..request import GROUP_BY, LOGGERS, OwnRun
from .classifier import BASE, NAME, SeveralClassifier, parts_of
from .cross_fit import CrossFitted, cross_fit
from .promise import Rule, best_thresholds, smallest_shares, thresholds_of_folds

log = logging.getLogger(__name__)
BLOCK = 256  # pictures whose features are kept at a time, for a run that is killed
FEATURES = "features"  # folder of these


def fit_several(asked: OwnRun, loggers: Sequence[logging.Logger] = LOGGERS) -> None:
    """Makes the run that is asked for, if it is not done.

    loggers: whose messages go to its log.

    Raises:
        UserError: the input can't work.
    """
    if asked.trainer:
        raise UserError(
            f"several labels per picture are trained by {NAME} alone: leave out --trainer {asked.trainer}, or say --one"
        )
    if asked.shots >= 1:
        raise UserError(
            "--shots is of pictures per class: leave it out, all pictures of several labels are trained on"
        )
    if GROUP_BY in asked.settings:
        raise UserError(
            "--group-by is of one label per picture: leave it out, and write groups into a column group, or say --one"
        )
    if asked.refit:
        raise UserError(
            "--refit is of one label per picture, runs of several are fitted to all pictures anyway: leave it out"
        )
    show_messages(*LOGGERS)
    sets = read_label_sets(asked.images)
    asked, reasons = completed(replace(asked, trainer=BASE), [asked.folder])
    cfg = config_of_images(asked)
    folder = asked.folder
    with (
        folder_of_run("the output folder", folder),
        logged_to(os.path.join(folder, LOG), *loggers) as file,
    ):
        file.write(f"** Config **\n{cfg}\n** System **\n{machine()}\n")
        log.info(
            "Several labels per picture (task: several): %s, %s, %s, results in %s",
            asked.images,
            counted(len(sets.paths), "picture"),
            counted(len(sets.classnames), "label"),
            folder,
        )
        for sentence in reasons:
            log.info("%s", sentence)
        make(cfg, sets)


def make(cfg: CfgNode, sets: LabelSets) -> None:
    """Makes a run in its folder, if it is not done.

    Raises:
        UserError: the pictures can't work, or the folder is another run's.
    """
    folder = cfg.OUTPUT_DIR
    kept = Kept(cfg.INPUT, cfg.INPUT.BACKGROUND or "white", has_crops=False)
    sets, content, groups, broken, found_in_part = looked_at(cfg, sets, kept)
    if is_done(cfg, content):
        log.info(
            "Done already: %s; to train again, delete that folder, or give another output folder",
            folder,
        )
        return
    started = time.monotonic()
    base = SeveralClassifier(method_of(cfg, sets.classnames), cfg)
    decoded = kept.shown.images
    pictures: list[Picture] = [decoded.get(path, path) for path in sets.paths]
    features = features_of(base, pictures, f"{folder}/{FEATURES}", content)
    encoded = time.monotonic()
    texts = base.texts(features)
    fold = stratified_folds(sets.truth, groups, FOLDS, cfg.SEED)
    fitted = cross_fit(features, texts, torch.from_numpy(sets.truth), torch.from_numpy(fold))
    seconds = {"train": time.monotonic() - encoded, "features": encoded - started}
    thresholds = thresholds_of_folds(fitted.probability, sets.truth, fold)
    given = fitted.probability >= thresholds[fold]
    measures = measure_label_sets(fitted.probability, given, sets.truth, sets.classnames)
    by_names = measure_label_sets(
        texts.sigmoid().float().numpy(),
        numpy.zeros(given.shape, bool),
        sets.truth,
        sets.classnames,
    )["map"]
    answers = {
        "image": numpy.array([image_name(path) for path in sets.paths]),
        "probability": fitted.probability,
        "truth": sets.truth,
        "group": groups,
        "fold": fold,
        "threshold": thresholds,
    }
    write_arrays(f"{folder}/{answers_file('test')}", answers)
    keep_probe(cfg, base, fitted, sets.classnames, content)
    metrics = {**measures, "map_by_names": by_names}
    rule = best_thresholds(fitted.probability, sets.truth)
    promises = {}
    if not found_in_part:
        promises = smallest_shares(fitted.probability, sets.truth, groups)
    write_record(
        cfg, base, fitted, sets, content, metrics, rule, promises, seconds, broken, found_in_part
    )
    shutil.rmtree(f"{folder}/{FEATURES}", ignore_errors=True)


def looked_at(
    cfg: CfgNode, sets: LabelSets, kept: Kept
) -> tuple[LabelSets, str, numpy.ndarray, list[str], float]:
    """Looks at each picture.

    kept: is given each as it is decoded.

    Returns:
        the pictures that can be read; a hash of these and their labels; the number (N,) of the group of
        each; names of those that can't be read; ``found_in_part``, see ``Images``.

    Raises:
        UserError: some can't be read and are not to be skipped, or too few are left.
    """
    seen = look_through(sets.paths, kept)
    reasons = [f"{path} ({look.reason})" for path, look in zip(sets.paths, seen) if look.reason]
    if reasons and cfg.DATALOADER.BROKEN_IMAGES != "skip":
        raise UserError(
            f"{len(reasons)} of the pictures can't be read: {first_few(reasons)}: replace them, or leave them out"
        )
    broken = []
    if reasons:
        number = counted(len(reasons), "picture")
        log.warning("Left out, since they can't be read: %s (%s)", number, first_few(reasons))
        broken = [image_name(path) for path, look in zip(sets.paths, seen) if look.reason]
        left = [place for place, look in enumerate(seen) if not look.reason]
        sets = LabelSets(
            [sets.paths[place] for place in left],
            sets.classnames,
            sets.truth[left],
            [sets.groups[place] for place in left],
        )
        seen = [seen[place] for place in left]
    groups, found_in_part = numbered_groups(seen, sets.groups)
    if note := note_on_partial(found_in_part, "by a column group"):
        log.warning("%s", note)
    apart = len(numpy.unique(groups))
    if apart < FOLDS:
        found = f"{counted(apart, 'picture')} that can be read and look different"
        if any(sets.groups):
            found = counted(apart, "group")
        raise UserError(
            f"{cfg.DATASET.ROOT} has {found}: give at least {FOLDS}, each fifth is answered by what was fitted "
            "without it"
        )
    check_occurring(sets.truth, sets.classnames, cfg.DATASET.ROOT)
    if apart < len(seen):
        log.info(
            "%s belong together in groups, %d groups and single pictures in all: each is trained on or tested as a whole",
            counted(len(seen), "picture"),
            apart,
        )
    digest = hashlib.sha256()
    for path, look, own in zip(sets.paths, seen, sets.truth):
        names = [name for name, has in zip(sets.classnames, own) if has]
        digest.update(f"{image_name(path)}|{names}\n".encode() + look.digest)
    digest.update(repr((sets.classnames, groups.tolist())).encode())
    return sets, digest.hexdigest()[:16], groups, broken, found_in_part


def numbered_groups(seen: Sequence[Seen], named: Sequence[str]) -> tuple[numpy.ndarray, float]:
    """A number (N,) for each picture's group, and ``found_in_part``, see ``Images``: where groups are named
    nothing is guessed, and a picture without a name is alone; else pictures that look alike belong
    together.

    Args:
        seen: of N pictures; named: N names of groups, "" for none.
    """
    if not any(named):
        found = look_alikes([picture.coarse for picture in seen], [0] * len(seen))
        return numpy.array(found.groups), share_partial(sum(found.is_partial), len(seen))
    first: dict[str, int] = {}
    places = [first.setdefault(name, place) if name else place for place, name in enumerate(named)]
    return numpy.array(places), 0.0


def is_done(cfg: CfgNode, content: str) -> bool:
    """Whether the folder holds the run that is asked for.

    Raises:
        UserError: it holds another one.
    """
    folder = cfg.OUTPUT_DIR
    if not os.path.isfile(f"{folder}/{FILE_NAME}"):
        return False
    record = read_record(f"{folder}/{FILE_NAME}")
    changed = changes(cfg, record)
    if not gives_several(record):
        changed = ["it gives one label per picture"]
    if not changed and record["split_hash"] != content:
        changed = [OTHER_IMAGES]
    if changed:
        raise UserError(
            f"{folder} belongs to another run ({first_few(changed)}): give another output folder, or delete it"
        )
    return True


@torch.no_grad()
def features_of(
    base: SeveralClassifier, pictures: Sequence[Picture], folder: str, content: str
) -> Tensor:
    """Features (N, E), of length one. Those of each ``BLOCK`` are kept until the run is done: one that was
    killed goes on there, to the same numbers.

    Args:
        content: what the pictures are, see ``looked_at``.
    """
    key = f"{content} {base.method.towers.backbone_hash} {base.cfg.INPUT.SIZE}"
    os.makedirs(folder, exist_ok=True)
    parts = []
    blocks = range(0, len(pictures), BLOCK)
    for start in tqdm(blocks, "Looking at the pictures", mininterval=1, dynamic_ncols=True):
        place = f"{folder}/{start:09d}.npz"
        known = kept_features(place, key)
        if known is None:
            shown = base.batches(pictures[start : start + BLOCK], None)
            some = [base.features_of(pixels) for pixels, _ in shown]
            known = torch.cat(some).numpy()
            write_arrays(place, {"features": known, "key": numpy.array(key)})
        parts.append(torch.from_numpy(known))
    return torch.cat(parts)


def kept_features(place: str, key: str) -> numpy.ndarray | None:
    """The features of a file of this run; None where there is none that can be read."""
    if not os.path.isfile(place):
        return None
    try:
        kept = read_arrays(place)
        return kept["features"] if str(kept["key"]) == key else None
    except Exception:  # damaged bytes can raise anything: the features are made again
        log.warning("%s can't be read, and is made again", place)
        return None


def keep_probe(
    cfg: CfgNode,
    base: SeveralClassifier,
    fitted: CrossFitted,
    classnames: Sequence[str],
    content: str,
) -> None:
    """Writes the checkpoint."""
    state = {
        "state_dict": parts_of(fitted.probe),
        "epoch": 1,
        "trainer": NAME,
        "classnames": list(classnames),
        "config": config_of_run(cfg),
        "backbone_hash": base.method.towers.backbone_hash,
        "split_hash": content,
    }
    write(state, f"{cfg.OUTPUT_DIR}/{MODEL_NAME}", epoch_name(1))


def write_record(
    cfg: CfgNode,
    base: SeveralClassifier,
    fitted: CrossFitted,
    sets: LabelSets,
    content: str,
    metrics: Measures,
    rule: Rule,
    promises: dict[str, float],
    seconds: dict[str, float],
    broken: list[str],
    found_in_part: float,
) -> None:
    """Writes ``results.json``, which marks the run as done; its fields are those of ``Evaluator``'s, and
    ``task``."""
    method = base.method
    state = parts_of(fitted.probe)
    learnable = sum(tensor.numel() for tensor in state.values())
    record: Record = {
        "format": FORMAT,
        "task": SEVERAL,
        "trainer": NAME,
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "metrics": {"test": metrics},
        "answers": {"test": file_hash(f"{cfg.OUTPUT_DIR}/{answers_file('test')}")},
        "classnames": sets.classnames,
        "parameters": {"learnable": learnable, "total": method.count_parameters()[1] + learnable},
        "prompts_hash": tensor_hash(state.values()),
        "backbone_hash": method.towers.backbone_hash,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "seconds_per_step": None,
        "test_images_per_second": None,
        "device": str(method.device),
        "precision": method.towers.precision,
        "skipped_images": {"test": broken} if broken else {},
        "learned": {"C": fitted.C, "text_weight": fitted.probe.text_weight.item()},
        "thresholds": dict(zip(sets.classnames, rule.thresholds.tolist())),
        "promises": promises,
        "folds": FOLDS,
        **({"found_in_part": found_in_part} if found_in_part else {}),
        "split_hash": content,
        "fewshot_sample": None,
        "git_commit": git_commit(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": cfg,
    }
    record["run"] = described(record, {})
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(f"{cfg.OUTPUT_DIR}/{FILE_NAME}", text + "\n")


def said_measures(record: Record) -> str:
    """How good a run is, in a sentence."""
    measured = record["metrics"]["test"]
    return (
        f"mAP {measured['map']:.1f} % (by names alone {measured['map_by_names']:.1f}), F1 of all labels "
        f"{measured['micro_f1']:.1f} %, mean of the labels' {measured['macro_f1']:.1f} %: all "
        f"{counted(measured['images'], 'picture')} by {record['folds']}-fold cross-validation"
    )

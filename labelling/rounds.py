"""Rounds of one run: pictures are labelled or corrected, and the same command trains again.

A run's folder holds the newest round. The ones before it stay below ``rounds/1``, ``rounds/2`` …, each with
its record, checkpoint and answers, so that it can be loaded. Each step leaves a folder from which the same
command goes on.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.files import write_text
from trainers.common.fingerprints import image_name
from trainers.common.readers import read_json
from trainers.common.record_file import (
    PICTURES,
    RECORD_FILE,
    ROUNDS,
    Record,
    answers_file,
    is_multi_label,
    read_answers,
    read_record,
    remove_record,
)
from trainers.common.same_run import changes
from trainers.data.images import Images
from trainers.engine.checkpoint import MODEL_NAME
from trainers.engine.run import Run

from .familiar import FAMILIAR_FILE
from .task import Task, task_of_run, tested_metrics

log = logging.getLogger(__name__)
UNFINISHED_ROUND = "unfinished"
REFIT = "refit"  # folder, in the run's, of what was trained on all images
ROUND_FILES = (MODEL_NAME, REFIT, FAMILIAR_FILE, *map(answers_file, ("train", "val", "test")))


class Labelled(NamedTuple):
    """A picture of a round.

    Attributes:
        content: hash of its bytes; labels: their names, sorted.
    """

    content: str
    labels: tuple[str, ...]


Pictures = Mapping[str, Labelled]  # by its name in the answers


def begin_round(run: Run, task: Task) -> None:
    """Make room in a run's folder for a round on these pictures.

    A finished round with the same settings and CLIP, some of the same pictures, and others or other labels is
    kept below ``ROUNDS``. Of a killed round on other pictures nothing is kept, where there is a former one.
    """
    folder = run.cfg.OUTPUT_DIR
    now = pictures_of(run.loaders.images)
    known = kept_rounds(folder)
    if os.path.isfile(f"{folder}/{RECORD_FILE}"):
        what = differences(former_pictures(folder, run, task), now)
        if not what:
            return
        place = keep_round(folder)
        log.info("The next round: %s; the former round stays in %s", what, place)
    elif known and read_pictures(folder) != now and former_pictures(known[-1], run, task):
        log.info("A killed round on other pictures is left out; the former one is in %s", known[-1])
    else:
        return
    for name in ROUND_FILES:
        part = f"{folder}/{name}"
        if os.path.isdir(part):
            shutil.rmtree(part)
        elif os.path.isfile(part):
            os.remove(part)
    remove_record(folder)  # last, since a killed command knows the former round by its record
    write_pictures(folder, now)


def end_round(run: Run) -> None:
    """Write which pictures a finished round has, and with which labels."""
    write_pictures(run.cfg.OUTPUT_DIR, pictures_of(run.loaders.images))


def write_pictures(folder: str, pictures: Pictures) -> None:
    text = json.dumps(pictures, ensure_ascii=False, indent=0)
    write_text(f"{folder}/{PICTURES}", text + "\n")


def pictures_of(images: Images) -> dict[str, Labelled]:
    """Return the pictures of a run."""
    pictures = {}
    for item in (*images.train_x, *images.whole_val, *images.val, *images.test):
        path = str(item.impath)
        labels = [item.classname]
        if images.truth:
            has = numpy.flatnonzero(images.truth[path]).tolist()
            labels = [images.classnames[label] for label in has]
        pictures[image_name(path)] = Labelled(images.digests[path].hex(), tuple(sorted(labels)))
    return pictures


def read_pictures(folder: str) -> dict[str, Labelled]:
    """Return the pictures of the round in a folder; none where they are not known."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        known = read_json(f"{folder}/{PICTURES}").items()
        return {name: Labelled(content, tuple(labels)) for name, (content, labels) in known}
    return {}


def former_pictures(folder: str, run: Run, task: Task) -> dict[str, Labelled]:
    """Return the pictures of the finished round in a folder; none where it was made with other settings than a
    run, by another CLIP or for another task."""
    try:
        record = read_record(f"{folder}/{RECORD_FILE}")
    except UserError:
        return {}
    is_same = (
        not changes(run.cfg, record)
        and record["backbone_hash"] == run.method.towers.backbone_hash
        and is_multi_label(record) == task.multi_label
    )
    return read_pictures(folder) if is_same else {}


def differences(former: Pictures, now: Pictures) -> str:
    """Return how the pictures of two rounds differ, in words: by their content, whatever they are called;
    "" where they don't, or have nothing in common."""
    before = dict(former.values())
    after = dict(now.values())
    common = before.keys() & after.keys()
    more = len(after.keys() - before.keys())
    gone = len(before.keys() - after.keys())
    changed = sum(before[content] != after[content] for content in common)
    if not common or not more + gone + changed:
        return ""
    names = {label for labels in after.values() for label in labels}
    known = {label for labels in before.values() for label in labels}
    said = [
        (more, f"{counted(more, 'picture')} more"),
        (changed, f"{counted(changed, 'label')} changed"),
        (gone, f"{gone} gone"),
        (len(names - known), f"new classes: {first_few(sorted(names - known))}"),
        (len(known - names), f"classes gone: {first_few(sorted(known - names))}"),
    ]
    return ", ".join(words for number, words in said if number)


# ---- the folder ----


def kept_rounds(folder: str) -> list[str]:
    """Return the folders of the former rounds of a run, the oldest first."""
    place = f"{folder}/{ROUNDS}"
    names = os.listdir(place) if os.path.isdir(place) else []
    return [f"{place}/{name}" for name in sorted(filter(str.isdecimal, names), key=int)]


def newest_finished(folder: str) -> str:
    """Return the folder of the newest finished round of a run: the run's own, or the former one's while the next
    is trained, or was killed."""
    if os.path.isfile(f"{folder}/{RECORD_FILE}"):
        return folder
    return [folder, *kept_rounds(folder)][-1]


def keep_round(folder: str) -> str:
    """Copy the finished round of a folder below ``ROUNDS``, where it is whole or not there; return the copy.
    One that a killed command has copied stays."""
    known = kept_rounds(folder)
    record = Path(folder, RECORD_FILE)
    if known and Path(known[-1], RECORD_FILE).read_bytes() == record.read_bytes():
        return known[-1]
    place = f"{folder}/{ROUNDS}/{len(known) + 1}"
    unfinished = f"{folder}/{ROUNDS}/{UNFINISHED_ROUND}"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(unfinished)
    for name in (*ROUND_FILES, PICTURES, RECORD_FILE):
        if os.path.isdir(f"{folder}/{name}"):
            shutil.copytree(f"{folder}/{name}", f"{unfinished}/{name}")
        elif os.path.isfile(f"{folder}/{name}"):
            shutil.copy2(f"{folder}/{name}", f"{unfinished}/{name}")
    os.rename(unfinished, place)
    return place


# ---- the comparison ----


class Tested(NamedTuple):
    """A finished round and its answers to its test pictures.

    Attributes:
        record: of the round; answers: as it has kept them, a row per picture.
        rows: content of a picture → its row; labels: content of a picture → names of its labels.
    """

    record: Record
    answers: Mapping[str, numpy.ndarray]
    rows: Mapping[str, int]
    labels: Mapping[str, Sequence[str]]


def progress_said(folder: str) -> str:
    """Return how good a round is beside the former one, in a sentence without its full stop; "" where there
    is none, or one was not tested."""
    known = kept_rounds(folder)
    if not known:
        return ""
    record = read_record(f"{folder}/{RECORD_FILE}")
    former = read_record(f"{known[-1]}/{RECORD_FILE}")
    task = task_of_run(record)
    now = task.headline(tested_metrics(record))
    before = task.headline(tested_metrics(former))
    if not now or not before:
        return ""
    said = f"This round: {now}, before {before}"
    with contextlib.suppress(OSError, ValueError, LookupError):
        both = on_both(tested_round(folder, record), tested_round(known[-1], former))
        if both is not None:
            number, of_now, of_former = both
            said += (
                f"; on the {counted(number, 'picture')} of both rounds, by today's labels, {of_now:.1f} %, before "
                f"{of_former:.1f} %"
            )
    return said


def tested_round(folder: str, record: Record) -> Tested:
    """Read the answers of the round in a folder; also raises the errors of ``read_answers``."""
    answers = read_answers(folder, record["config"]["TEST"]["SPLIT"], record)
    pictures = read_pictures(folder)
    rows = {}
    for row, name in enumerate(answers["image"].tolist()):
        if name in pictures:
            rows[pictures[name].content] = row
    return Tested(record, answers, rows, dict(pictures.values()))


def on_both(now: Tested, former: Tested) -> tuple[int, float, float] | None:
    """Return how many pictures two rounds have both tested, and how good each is on these, in percent, by
    the newer one's labels; None where there is none."""
    names = sorted({*now.record["classnames"]} & {*former.record["classnames"]})
    both = sorted(now.rows.keys() & former.rows.keys())
    common = [content for content in both if {*now.labels[content]} <= {*names}]
    if not common:
        return None
    truth = numpy.zeros((len(common), len(names)), bool)
    for row, content in zip(truth, common):
        row[:] = [name in now.labels[content] for name in names]
    return len(common), score(now, common, truth, names), score(former, common, truth, names)


def score(
    tested: Tested, contents: Sequence[str], truth: numpy.ndarray, names: Sequence[str]
) -> float:
    """Return how good a round is on n of its pictures, in percent (``Task.score``).

    Args:
        contents: n hashes; truth: (n, K) bool, which of the K names are their labels.
    """
    places = [tested.rows[content] for content in contents]
    number = len(tested.answers["image"])
    part = {name: array[places] for name, array in tested.answers.items() if len(array) == number}
    task = task_of_run(tested.record)
    return task.score(part, tested.record["classnames"], truth, names)

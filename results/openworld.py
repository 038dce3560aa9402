"""OpenworldAUC of the runs of ``--protocol open``, out of the answers that three runs have kept.

Of the same prompts ``train_base`` answers base images among base classes, ``test_new`` new images
among new classes, and ``test_open`` all images among all classes, which tells the halves apart.

References:
    - Hua et al. (2025), "OpenworldAUC: Towards Unified Evaluation and Optimization for Open-world
      Prompt Tuning", §3.3.
"""

import logging
from pathlib import Path

import numpy

from trainers.common.errors import UserError
from trainers.common.record_file import nested

from .runs import HALVES, FinishedRun

log = logging.getLogger(__name__)
SIGN = "base_probability"  # the official one: the largest probability of a base class


def openworld_auc(sign: numpy.ndarray, right: numpy.ndarray, is_new: numpy.ndarray) -> float:
    """E over pairs of a base image b and a new image n of 1[g(b) = y_b] · 1[r(n) > r(b)] · 1[h(n) =
    y_n].

    Args:
        sign: r, (N,), larger where an image is taken for new; equal ones count half.
        right: (N,) bool, of base images whether g knows their class among the base classes, of new
            ones whether h does among the new classes; is_new: (N,) bool.

    Returns:
        percent of all pairs.
    """
    base = numpy.sort(sign[right & ~is_new])
    new = sign[right & is_new]
    below = sum(numpy.searchsorted(base, new, side).sum() for side in ("left", "right")) / 2
    return float(100 * below / (is_new.sum() * (~is_new).sum()))


def openworld_aucs(runs: list[FinishedRun]) -> dict[Path, dict[str, float]]:
    """OpenworldAUC of the runs of ``test_open``: folder → name, one of ``open.auroc``'s → percent; an
    empty dict, with a warning, where the other two runs are not among them."""
    first = {identity(run, run.part): run for run in reversed(runs)}
    found: dict[Path, dict[str, float]] = {}
    for run in runs:
        if "open" not in run.metrics:
            continue
        halves = [first.get(identity(run, part)) for part in HALVES]
        found[run.folder] = {}
        try:
            found[run.folder] = aucs_of(run, *halves)
        except UserError as error:
            log.warning("no OpenworldAUC: %s: %s", run.folder, error)
    return found


def identity(run: FinishedRun, part: str) -> tuple[object, ...]:
    """Return the key of a training's run on that part of the protocol."""
    what = run.record["run"]
    return part, run.config, *(what[name] for name in ("dataset", "shots", "trainer", "seed"))


def aucs_of(
    run: FinishedRun, base: FinishedRun | None, new: FinishedRun | None
) -> dict[str, float]:
    """Return OpenworldAUC by the name of the score that tells new images from base ones.

    Raises:
        UserError: a half is missing, its prompts or images are others, or its answers do not say which images are new.
    """
    again = "delete its folder and run it again"
    if base is None or new is None:
        missing = HALVES[0] if base is None else HALVES[1]
        raise UserError(
            f"{missing} of it is missing, give the folder of both or run --protocol open"
        )
    answers = run.known_answers
    if SIGN not in answers:
        raise UserError(f"its answers lack {SIGN}, {again}")
    is_new = answers["label"] >= len(base.classnames)
    right = numpy.zeros(len(is_new), bool)
    for half, places in ((base, ~is_new), (new, is_new)):
        if half.record["prompts_hash"] != run.record["prompts_hash"]:
            raise UserError(f"{half.folder} was tested with other prompts, {again}")
        if not numpy.array_equal(half.known_answers["image"], answers["image"][places]):
            raise UserError(f"{half.folder} was tested on other images, {again}")
        right[places] = half.known_answers["right"]
    names = nested(run.metrics, "open", "auroc") or ()
    return {name: openworld_auc(answers[name], right, is_new) for name in names if name in answers}

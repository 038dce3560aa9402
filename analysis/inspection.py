"""What is seen inside the models whose templates vote: features of texts and images, words near the context tokens, occlusion maps."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from results.answers import DOUBT, certain_answers
from results.report.gallery import find_images
from results.report.inspections import Inspection, Inspections, Near
from results.runs import Run, Series, is_right
from results.table import read_records
from trainers import PromptedClassifier
from trainers.common.errors import UserError
from trainers.engine.checkpoint import newest
from trainers.engine.saved_prompts import MODEL_NAME
from trainers.prompting.prompts import Prompts
from trainers.prompting.tokens import TOKENIZER

from .occlusion import occlusions

log = logging.getLogger(__name__)

IMAGES = 100  # test images, evenly spaced, whose features are compared; at most
OCCLUDED = 4  # images that occlusion maps are made of
WORDS = 5  # nearest ones that are listed
SAMPLE = 500  # words, evenly spaced, out of which the usual distance between words is taken


# ---- one run ----


def similarity(features: numpy.ndarray) -> numpy.ndarray:
    """Cosine between two templates' features of the same class or image, mean over all: (M, N, E) of length one → (M, M)."""
    return numpy.einsum("mne,lne->ml", features, features, dtype=float) / features.shape[1]


def nearest_words(context: Tensor, embedding: Tensor) -> tuple[list[list[list[Near]]], float]:
    """The words that context tokens are nearest to, by Euclidean distance (Zhou et al., 2022, "Learning to Prompt for Vision-Language
    Models", §4.3).

    Args:
        context: (M, n, D).
        embedding: (V, D) of CLIP's vocabulary; rows of zeros belong to tokens that were never trained, and are no words.

    Returns:
        M lists of n lists of (word, distance), and the median distance of a word to the nearest other one, with which to compare.
    """
    known = embedding.any(dim=1).nonzero()[:, 0]
    embedding = embedding[known]
    # the quick way by a matrix product is too coarse for tokens that lie where a word is
    distances = torch.cdist(
        context.flatten(0, 1), embedding, compute_mode="donot_use_mm_for_euclid_dist"
    )  # (M·n, V)
    near = distances.topk(WORDS, largest=False)
    found = [
        [
            (TOKENIZER.decoder[known[word].item()].removesuffix("</w>"), distance)
            for word, distance in zip(words, row)
        ]
        for words, row in zip(near.indices, near.values.tolist())
    ]
    apart = (
        torch.cdist(embedding[:: -(-len(embedding) // SAMPLE)], embedding)
        .topk(2, largest=False)
        .values[:, 1]
    )
    n_ctx = context.shape[1]
    return [
        found[start : start + n_ctx] for start in range(0, len(found), n_ctx)
    ], apart.median().item()


def prompts_of(classifier: PromptedClassifier) -> Prompts:
    """The prompts of a method with templates, which don't depend on the image."""
    assert classifier.encoded is not None and classifier.encoded[1] is not None
    return classifier.encoded[1]


@torch.no_grad()
def image_features(classifier: PromptedClassifier, paths: Sequence[str]) -> numpy.ndarray:
    """(M + 1, N, E) features of image files under each template's prompts and, last, without prompts."""
    trainer, found = classifier.trainer, []
    for images, _ in classifier.batches(paths):
        with trainer.precision.autocast():
            prompted = trainer.encode_images(images, prompts_of(classifier))  # (M, B, E)
            found.append(torch.cat([prompted, trainer.encode_images(images)]).cpu())
    return torch.cat(found, dim=1).numpy()


def inspect(run: Run, training: Path, paths: Mapping[str, str], occlude: bool) -> Inspection:
    """``Inspection`` of a run.

    Args:
        training: folder of the run that trained its prompts.
        paths: name of an image, as the answers have it → file; those that are missing are left out.
        occlude: whether to make occlusion maps, of the right answers that are doubted least, one a class.

    Raises:
        UserError: the prompts, their CLIP or an image can't be loaded.
    """
    classifier = PromptedClassifier.load(training)
    if classifier.classnames != run.record["classnames"]:
        classifier = classifier.with_classes(run.record["classnames"])
    trainer = classifier.trainer
    texts = numpy.concatenate(
        [classifier.embed_text(), trainer.hand_crafted[None].cpu().numpy()]
    )  # (M + 1, K, E)
    words, between = nearest_words(
        trainer.prompt_learner.ctx.float().cpu(),
        trainer.backbone.text.token_embedding.weight.float().cpu(),
    )
    found = Inspection(similarity(texts), None, words, between)
    files = [paths.get(name) for name in run.known_answers["image"].tolist()]
    there = numpy.array([index for index, file in enumerate(files) if file is not None], dtype=int)
    if len(there) and prompts_of(classifier).visual is not None:
        some = there[:: -(-len(there) // IMAGES)]
        found.image = similarity(image_features(classifier, [files[index] for index in some]))
    if len(there) and occlude:
        label, doubt = run.known_answers["label"][there], run.known_answers[DOUBT][there]
        chosen = there[certain_answers(doubt, is_right(run.known_answers)[there], label, OCCLUDED)]
        found.occlusions = occlusions(
            classifier,
            [files[index] for index in chosen],
            run.known_answers["label"][chosen].tolist(),
        )
    return found


# ---- all runs ----


def trainings(runs: Sequence[Run]) -> dict[str, Path]:
    """Fingerprint of prompts → folder of the run that trained them, among the given runs and the trainings of their protocols."""

    def trains(folder: Path) -> bool:
        return newest(str(folder / MODEL_NAME)) is not None

    found = {run.record["prompts_hash"]: run.folder for run in runs if trains(run.folder)}
    for protocol in {
        run.protocol for run in runs if run.protocol and run.record["prompts_hash"] not in found
    }:
        for part in sorted(protocol.glob("train_*")):
            for path, record in read_records(part):
                if trains((part / path).parent):
                    found.setdefault(record["prompts_hash"], (part / path).parent)
    return found


def inspect_all(series: list[Series], root: str | None) -> Inspections:
    """Folder of a run → its ``Inspection``, for all whose prompts are at hand; a warning counts the others.

    Args:
        series: those that ``with_templates`` gives; root: folder of the data sets, or None: nothing that needs images is looked at.
    """
    runs = [run for one in series for run in one.runs]
    first, folders = {one.runs[0].folder for one in series}, trainings(runs)
    images: dict[str, dict[str, str]] = {}
    found: Inspections = {}
    without = 0
    for run in tqdm(runs, desc="templates", unit="run", disable=None if runs else True):
        training = folders.get(run.record["prompts_hash"])
        if training is None:
            without += 1
            continue
        data = run.record["dataset"]
        if root and data not in images:
            images[data] = find_images(run, root)
        try:
            found[run.folder] = inspect(run, training, images.get(data, {}), run.folder in first)
        except UserError as error:
            log.warning("the templates of %s can't be looked into: %s", run.folder, error)
    if without:
        log.warning(
            "the prompts of %d of %d runs with templates are not at hand, as the training that made them is not among the runs: "
            "their features and nearest words are missing",
            without,
            len(runs),
        )
    return found

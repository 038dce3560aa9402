"""A trained run as a classifier of images: no data set, no training, a few lines in anybody's program.

>>> from labelling import PromptedClassifier  # installed: from cdc_labelling
>>> classifier = PromptedClassifier.load("output/my_run/seed1")
>>> answers = classifier.predict(["cat.jpg", "dog.png"])
>>> answers.probabilities.shape == (2, len(classifier.classnames))
True
"""

import logging
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, cast

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.recipes import SHOTS
from trainers.common.record_file import Record, shown_name
from trainers.common.trained_on import UNKNOWN_PICTURES, TrainedOn
from trainers.data.random_state import restore_rng_state, rng_state
from trainers.data.transforms import least_side, pixels_of_test
from trainers.devices import AUTO
from trainers.engine.saved_run import load_run, method_of
from trainers.evaluation.prediction import Prediction
from trainers.method import Method
from trainers.texts.classnames import check_names

from .answer import Answers, without_unfamiliar
from .appearance import looks_of
from .familiar import Familiar, read_familiar
from .fit import fit_folder
from .official_prompts import BACKBONE, official_classifier
from .pictures import (
    Picture,
    Pictures,
    ReadImages,
    batches_of,
    read_images,
    transform_each,
)
from .request import Text, ask, checked_names, checked_text
from .rules import LabelRule, Wanted, is_promise, least_certainty, rule_of
from .shared import HUB_RUN, load_shared, push
from .task import task_of_run
from .threshold import CONFIDENCE
from .zero_shot import zero_shot_classifier

if TYPE_CHECKING:
    from .evaluate import Evaluation
    from .label_cells import Labelled, Sources

log = logging.getLogger(__name__)


class PromptedClassifier:
    """A CLIP under trained prompts, ready to label images; from a run by ``load``, for other
    classes by ``with_classes``.

    Images may be given as one or as many (a list, any iterable, or an array or tensor with one
    dimension more):

    - a path, or a PIL image,
    - a numpy array (H, W, 3) of uint8,
    - a tensor (3, H, W), uint8 or floating point in [0, 1]; the latter is taken in steps of 1/255,
      as if it came from a file.

    Size and shape don't matter: each is resized and cropped as the run's test images were.

    Args:
        method: whose prompts are loaded.
        cfg: the run's config; record: its ``results.json``.
        trained_on: fingerprints of its training images, by which these are recognised.
        rule: which answers are given as labels; None: the method's own answers.
        familiar: features of its training images, by which unfamiliar ones are found; None: not known.
        withholds: whether unfamiliar images get no label.
    """

    def __init__(
        self,
        method: Method,
        cfg: CfgNode,
        record: Record,
        trained_on: TrainedOn = UNKNOWN_PICTURES,
        rule: LabelRule | None = None,
        familiar: Familiar | None = None,
        withholds: bool = False,
    ) -> None:
        self.task = task_of_run(record)
        self.rule = rule
        self.familiar = familiar
        self.withholds = withholds and familiar is not None
        self.method = method.eval().requires_grad_(False)
        self.cfg = cfg
        self.record = record
        self.trained_on = trained_on
        self.transform = pixels_of_test(cfg.INPUT)
        with torch.no_grad(), method.towers.autocast():
            # once for all images; None where the text depends on the image
            self.encoded = method.encode()

    def __repr__(self) -> str:
        record = self.record
        classes = counted(len(self.classnames), "class")
        run = f"{record['trainer']} on {shown_name(record)}, seed {record['seed']}"
        return f"<{type(self).__name__}: {run}, {self.cfg.MODEL.BACKBONE.NAME}, {classes}>"

    @classmethod
    def load(
        cls,
        folder: Text,
        backbone: Text | None = None,
        *,
        max_error: float | str | None = None,
        max_missed: float | None = None,
        min_certainty: float | None = None,
        confidence: float = CONFIDENCE,
        label_unfamiliar: bool = False,
        device: str = AUTO,
    ) -> "PromptedClassifier":
        """The classifier that a run has trained.

        Args:
            folder: the run's output folder, with ``results.json`` and, where anything was learned,
                ``prompt_learner``; or ``hf:<owner>/<name>`` of one that ``push_to_hub`` has shared, and
                ``hf:<owner>/<name>@<commit>`` for one that stays as it is.
            backbone: name or file of the CLIP, where it is not where the run found it any more; its
                weights have to be the same.
            max_error, max_missed, min_certainty, confidence, label_unfamiliar: which answers are given as
                labels, as by ``predict.py`` (``rules.Wanted``).
            device: auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.

        Raises:
            UserError: it holds no finished training of this toolbox or the prompts of another one,
                or its CLIP is not found or has other weights; or a promise can't be made.
        """
        place = os.fspath(folder)
        wanted = Wanted(max_error, max_missed, min_certainty, confidence, label_unfamiliar)
        if place.startswith(HUB_RUN):
            return cls.of_hub(place, backbone, wanted, device)
        return cls.of_run(place, backbone, rule_of(place, wanted), wanted.withholds, device)

    @classmethod
    def of_run(
        cls,
        folder: str,
        backbone: Text | None,
        rule: LabelRule | None,
        withholds: bool,
        device: str = AUTO,
    ) -> "PromptedClassifier":
        """The classifier that a run has trained (``load``); rule, withholds: which answers are labels."""
        run = load_run(folder, checked_text("the backbone", backbone), device)
        familiar = read_familiar(folder, run.record)
        return cls(run.method, run.cfg, run.record, run.images, rule, familiar, withholds)

    @classmethod
    def of_hub(
        cls, name: str, backbone: Text | None, wanted: Wanted, device: str
    ) -> "PromptedClassifier":
        """The classifier of a run on the hub (``load``). Its pictures are not there, so it promises nothing.

        Raises:
            UserError: as ``shared.load_shared``; or a promise is asked for.
        """
        wanted.check()
        if wanted.max_error is not None or wanted.max_missed is not None:
            raise UserError(
                f"{name} has no answers to pictures, which a promise rests on: load the run's own folder, or give min_certainty"
            )
        run = load_shared(name, checked_text("the backbone", backbone), device)
        certainty = wanted.min_certainty
        rule = None if certainty is None else least_certainty(run.record, certainty)
        return cls(run.method, run.cfg, run.record, run.images, rule)

    @classmethod
    def from_official(
        cls,
        checkpoint: Text,
        trainer: str,
        classnames: Iterable[str],
        backbone: Text = BACKBONE,
        settings: Mapping[str, object] | None = None,
    ) -> "PromptedClassifier":
        """The classifier of prompts that a method's authors released, for any class names.

        Numbers of tokens and layers follow from the checkpoint, all else from the trainer's recipe
        for the CLIP.

        Args:
            checkpoint: the file, such as ``model.pth.tar-50``.
            trainer: CoOp, CoCoOp, KgCoOp, MaPLe or PromptSRC.
            classnames: at least two names; of class-specific contexts those that were trained, in
                any order.
            backbone: name or file of the CLIP that it was trained for.
            settings: KEY → value over the recipe's, such as
                ``{"TRAINER.COOP.CLASS_TOKEN_POSITION": "middle"}``, of which a checkpoint says
                nothing.

        Raises:
            UserError: the file is not such a checkpoint, or is of another trainer, CLIP or shape, or has
                class-specific contexts of other names.
        """
        return cls(*official_classifier(checkpoint, trainer, classnames, backbone, settings))

    @classmethod
    def zero_shot(
        cls,
        classnames: Iterable[str],
        backbone: Text | None = None,
        *,
        multi_label: bool = False,
        device: str = AUTO,
    ) -> "PromptedClassifier":
        """Return a CLIP without training, which answers by class names alone, in the sentences of
        ``ZeroshotCLIP2``.

        Nothing was tested, so nothing is promised of its answers.

        Args:
            classnames: at least two names; backbone: name or file of a CLIP; without one that of
                ``fit``.
            multi_label: whether each label has a probability of its own, by one sentence (``ZeroshotCLIP``);
                no label is given.
            device: as in ``load``.

        Raises:
            UserError: the names don't work, or the CLIP is not found.
        """
        method, cfg, record, why = zero_shot_classifier(classnames, backbone, multi_label, device)
        if why:
            log.info("%s", why)
        return cls(method, cfg, record)

    @classmethod
    def fit(
        cls,
        images: "Sources | Labelled",
        labels: Sequence[object] | None = None,
        *,
        trainer: str | None = None,
        backbone: str | os.PathLike[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        recipe: str | os.PathLike[str] | None = None,
        shots: int = SHOTS,
        seed: int = 1,
        group_by: str | None = None,
        classes_at: int = 1,
        boxes: bool = False,
        settings: Mapping[str, object] | None = None,
        multi_label: bool | None = None,
        refit: bool = False,
        device: str | None = None,
    ) -> "PromptedClassifier":
        """Trains a classifier on your own images, with the numbers of ``train.py --images``.

        A part of them is kept for a test, another for thresholds; a fit that was stopped goes on by
        the same call, and one that is done is loaded. The program's random generators are left as
        they were.

        Args:
            images: a folder of class folders, or of ``train`` and ``test``; or a file that names
                images and labels, CSV or Label Studio's JSON export; or a list of these, of which files
                correct folders, and later files earlier ones; or N images, see above,
                with their ``labels``; or a pandas ``DataFrame`` with the columns ``path`` and
                ``label``; or a torch data set of (image, label), whose labels are numbered by its
                ``classes``, if it has any.
            labels: N class names, or N sets of names where a picture may have several.
            trainer: name of a method (``list_trainers``); without one ``LinearProbe``, a
                regression on image features beside the texts.
            backbone: name or file of a CLIP; without one ViT-B/16 on a GPU, else ViT-B/32, and where
                their weights can't be had the tiny one that comes with the package.
            folder: where the run goes, from which ``load`` has it again; images that no folder or file
                names are listed beside it, in ``<folder>-images``, which also gets those that are no
                files. By default it is ``output/<images>/<trainer>/seed<seed>`` or, without a folder
                or file of images, ``output/fit/<trainer>``; of no named trainer without ``<trainer>``.
            recipe: name of one of the trainer's recipes, or a file; without one that for the CLIP.
            shots: training images per class, at most; −1: all.
            seed: of the sample and the training, 0 or more.
            group_by: which images belong together, such as those of a patient or a film: ``"folder"``, the
                one below the class folder that holds them, a regular expression for the files' names
                with one group, such as ``r"(.+)_[0-9]+"``, whose groups are of one class each unless it begins
                with ``across:``; or ``"none"``: each image is independent. Images without a named group
                belong together if they are copies.
            classes_at: how many levels below a folder its class folders lie: 2 for ``animals/dogs``.
            boxes: whether each box of COCO's or Label Studio's file is a picture, its crop; the boxes of a
                photograph belong together. ``evaluate`` then takes such files in the same way.
            settings: KEY → value over the recipe's, such as ``{"OPTIM.MAX_EPOCH": 5}``.
            multi_label: whether a picture may have several labels, or none; None: if the file says it, or
                ``labels`` are sets of names.
            refit: trains once more on all images, those of the test too, into ``<folder>/refit``, which
                is returned: of trainers that learn in epochs.
            device: as in ``load``; None: what the settings say.

        Raises:
            UserError: the input can't work (``load``).
        """
        from .label_cells import are_sources, wants_multi_label, write_images

        multi_label = wants_multi_label(images, labels, multi_label, boxes)
        root = images
        made = ""  # folder of the written list of images that are not in a folder
        if not are_sources(images, labels):
            by_name = os.path.join("output", "fit", checked_text("the trainer", trainer))
            folder = os.path.normpath(checked_text("the output folder", folder) or by_name)
            made = os.path.abspath(f"{folder}-images")
            root = os.path.join(made, f"{os.path.basename(made)}.csv")
        asked = ask(
            cast("Sources", root),
            classes_at=classes_at,
            multi_label=multi_label,
            trainer=trainer,
            backbone=backbone,
            recipe=recipe,
            folder=folder,
            shots=shots,
            seed=seed,
            group_by=group_by,
            boxes=boxes,
            settings=settings,
            refit=refit,
            device=device,
        )
        is_new = bool(made) and not os.path.exists(made)
        if made:
            write_images(images, labels, made, multi_label)
        state = rng_state()
        try:
            return cls.load(fit_folder(asked), device=str(asked.settings.get("DEVICE", AUTO)))
        except UserError:
            if is_new:  # so that the corrected call finds its place free
                shutil.rmtree(made)
            raise
        finally:
            restore_rng_state(state)

    @property
    def background(self) -> str:
        """The background of transparent pictures: the run's ``INPUT.BACKGROUND``; white where it took
        its own pictures as they are stored."""
        return self.cfg.INPUT.BACKGROUND or "white"

    @property
    def classnames(self) -> list[str]:
        """The K names that it tells apart."""
        return list(self.method.classnames)

    @property
    def classes_(self) -> numpy.ndarray:
        """The K names as an array, in the order of the columns of ``predict_proba``."""
        return numpy.array(self.classnames)

    def with_classes(self, classnames: Iterable[str]) -> "PromptedClassifier":
        """The trained run for other classes: CLIP's vocabulary is open.

        Another order of the trained names changes nothing but the order, some of them are told apart
        as they were trained, and names that were added can be taken away again. The ``note`` of the
        answers says how a list with added names is answered, where in another way.

        Args:
            classnames: at least two names.

        Raises:
            UserError: the context is class-specific, so it says nothing of added classes; a name is
                too long, or nothing; or the CLIP can't tell two of them apart.
        """
        names = checked_names(classnames)
        trained = self.method.trained.classnames
        if not self.method.can_answer(names, trained):
            raise UserError(
                f"this run says nothing of classes that it was not trained for: {self.method.why_trained_alone()}; "
                "to name others, train with a CLIP's texts and without CSC"
            )
        # what is promised is promised of all of the run's classes
        is_kept = sorted(names) == sorted(trained) or not is_promise(self.rule)
        method = self.method.for_classes(names)
        rule = self.rule if is_kept else None
        known = self.trained_on, rule, self.familiar, self.withholds and is_kept
        other = type(self)(method, self.cfg, self.record, *known)
        texts = None if other.encoded is None else other.encoded[0]  # (M, K, E)
        # pictures tell trained classes apart where their texts don't
        are_distinct = len({*names}) == len(names)
        are_seen = self.method.tells_by_images and are_distinct and {*names} <= {*trained}
        backbone = other.method.backbone
        check_names(backbone, names, are_fixed=False, texts=texts, are_seen=are_seen)
        return other

    def predict(self, images: Pictures, broken: list[UserError] | None = None) -> Answers:
        """Return the ``Answers`` to images in any form that the class names; they are the ones that the
        run's own test gives. They are read batch by batch.

        Args:
            broken: collects the errors of unreadable images, which are left out; without it the
                first one is raised.

        Raises:
            UserError: no image, one that can't be read (the message names it), or an array or
                tensor that is not an image.
        """
        return self.answers(*self.prediction(images, broken))

    def predict_batches(
        self, images: Pictures, broken: dict[int, UserError] | None = None
    ) -> Iterator[Answers]:
        """``Answers`` batch by batch, for more images than memory holds: a batch is computed while
        the next ones are read. Batches without a readable image are left out.

        Args:
            broken: collects the errors of unreadable images by their places among all, from 0;
                without it the first one is raised.

        Raises:
            UserError: as ``predict``; an empty list is allowed.
        """
        for prediction, names in self.predictions(images, broken):
            yield self.answers(prediction, names)

    def answers(self, answer: Prediction, names: list[str | None]) -> Answers:
        """A ``Prediction`` of N images, with their names, as ``Answers``."""
        answers = self.task.answered(answer, self.method, names, self.rule)
        has_p_values = answers.unfamiliar is not None
        return without_unfamiliar(answers) if self.withholds and has_p_values else answers

    def predict_proba(self, images: Pictures) -> numpy.ndarray:
        """Probabilities (N, K) of the classes in the order of ``classes_`` (``predict``)."""
        return self.predict(images).probabilities

    def features(self, images: Pictures) -> numpy.ndarray:
        """Features (N, E) of images under the learned prompts, of length one, in fp32, for a search or a map.

        Where each of M templates prompts the images, they are the mean over the templates,
        normalised. Where only the text is prompted, they are CLIP's own.

        Raises:
            UserError: as ``predict``.
        """
        parts = []
        with torch.no_grad():
            for shown, _ in self.batches(images, None):
                there = shown.to(self.method.device)
                of_templates = self.method(there[None], self.encoded).image_features
                # (M or 1, B, E) → (B, E)
                parts.append(F.normalize(of_templates.mean(dim=0), dim=-1).float().cpu())
        if not parts:
            raise UserError("there is no image to look at: give at least one")
        return torch.cat(parts).numpy()

    def evaluate(
        self, images: "Sources | Labelled", labels: Sequence[object] | None = None
    ) -> "Evaluation":
        """Measure the answers to labelled images; warn of images that were trained on.

        Args:
            images, labels: in any form that ``fit`` takes. Of a folder all images count, or those of
                its ``test``, if it has one; class folders are named as in training.

        Raises:
            UserError: as ``predict``; or a label is none of ``classes_``.
        """
        from .evaluate import labelling_of, measure_answers, truth_of

        multi_label = self.task.multi_label
        known = labelling_of(images, labels, multi_label, self.cfg.DATASET.BOXES)
        truth = truth_of(known.names, self.classnames)
        answers = self.predict(known.pictures)
        return measure_answers(known, answers, truth, self.trained_on, multi_label)

    def prediction(
        self, images: Pictures, broken: list[UserError] | None = None
    ) -> tuple[Prediction, list[str | None]]:
        """The method's own ``Prediction`` for N images, on the CPU, and their N names; see
        ``predict``."""
        unreadable: dict[int, UserError] | None = None if broken is None else {}
        answers = []
        names = []
        for answer, its_names in self.predictions(images, unreadable):
            answers.append(answer)
            names += its_names
        errors = list((unreadable or {}).values())
        if not answers:
            first = f"not one can be read; the first: {errors[0]}" if errors else "there is none"
            raise UserError(f"there is no image to look at: {first}")
        if broken is not None:
            broken += errors
        return Prediction.concatenate(answers), names

    def predictions(
        self, images: Pictures, broken: dict[int, UserError] | None
    ) -> Iterator[tuple[Prediction, list[str | None]]]:
        """The ``Prediction`` for each batch, on the CPU, and its images' names; see
        ``predict_batches``."""
        with closing(self.batches(images, broken)) as batches:
            for shown, names in batches:
                yield self.predicted(shown), names

    @torch.no_grad()
    def predicted(self, shown: Tensor) -> Prediction:
        """The ``Prediction``, on the CPU, for images as the method takes them, (B, 3, H, W)."""
        if self.familiar is not None:
            return self.predicted_with_features(shown)[0]
        answer = self.method.answer(shown.to(self.method.device)[None], self.encoded)
        answer.check_finite()
        return answer.cpu()

    @torch.no_grad()
    def predicted_with_features(self, shown: Tensor) -> tuple[Prediction, Tensor]:
        """Return the ``Prediction`` of images (``predicted``), and the CLIP's own features (B, E) of them, of any
        length, both on the CPU."""
        method = self.method
        images = shown.to(method.device)[None]
        with method.towers.autocast():
            features = method.towers.encode_images(images, normalize=False)  # (1, B, E)
        # where nothing is learned in epochs the image encoder is CLIP's own
        answer = method.answer(images if method.learns_in_epochs else features, self.encoded)
        answer.check_finite()
        answer = answer.cpu()
        if self.familiar is not None:
            p_values = self.familiar.p_values(features[0].cpu().numpy(), looks_of(shown))
            answer.unfamiliar = torch.from_numpy(p_values)
        return answer, features[0].float().cpu()

    def batches(
        self, images: Pictures, broken: dict[int, UserError] | None
    ) -> Generator[tuple[Tensor, list[str | None]], None, None]:
        """Images as ``read_batch`` has them, (B, 3, H, W), and their names, while the next ones are read;
        broken: as in ``predict_batches``."""
        return batches_of(images, self.cfg.DATALOADER.TEST.BATCH_SIZE, self.read_batch, broken)

    def read_batch(self, pool: ThreadPoolExecutor, images: list[Picture]) -> ReadImages:
        """Read a batch of images by the threads of a pool, as the method takes them."""
        return read_images(pool, images, self.read)

    def read(self, images: Sequence[Picture]) -> list[Tensor | UserError]:
        """Return the pixels (3, H, W) of an image, or of each box of a photograph, as in the run's test, or why
        it can't be read."""
        return transform_each(images, self.background, self.transform, least_side(self.cfg.INPUT))

    def push_to_hub(self, repository: str, *, private: bool = True) -> str:
        """Write the run to a repository of the Hugging Face hub, ``<owner>/<name>``, for ``load``; return the
        commit. There are the learned weights, the record and a card, and neither pictures nor their names.

        Raises:
            UserError: the hub refuses, or this classifier has other classes than its run.
        """
        return push(self, repository, private)

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Writes the classifier for programs without this toolbox (``export.py``).

        Everything is computed in fp32 on the CPU, whatever the run's precision.
        """
        from .export import export

        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DEVICE = "cpu"
        cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC = "fp32"
        cfg.freeze()
        method = method_of(cfg, self.classnames)
        if method.learner is not None:
            method.load(self.method.trained.state, self.method.trained.classnames)
        export(type(self)(method, cfg, self.record), folder)

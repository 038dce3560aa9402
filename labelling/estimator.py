"""``ClipClassifier``: ``PromptedClassifier.fit`` as an estimator of scikit-learn's, for its
``cross_val_score``, ``GridSearchCV`` and pipelines.

>>> from PIL import Image
>>> from sklearn.model_selection import cross_val_score
>>> images = [Image.new("RGB", (32, 32), (level, 0, 0)) for level in range(160, 256)]
>>> images += [Image.new("RGB", (32, 32), (0, 0, level)) for level in range(160, 256)]
>>> names = ["red"] * 96 + ["blue"] * 96
>>> classifier = ClipClassifier(trainer="GDA", backbone="tiny")
>>> cross_val_score(classifier, images, names, cv=2).shape
(2,)
"""

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from trainers.common.recipes import SHOTS

from .classifier import PromptedClassifier
from .folders.pictures import Pictures


class ClipClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A classifier of images that scikit-learn can clone, fit and score.

    Images are given as an array or list of N paths, or of any that ``PromptedClassifier`` takes. Of
    those to fit, a part is kept aside as in every training, see ``PromptedClassifier.fit``; of the
    run nothing is kept but the classifier.

    Args:
        trainer, backbone, recipe, shots, seed, settings: see ``PromptedClassifier.fit``.

    Attributes:
        classifier_: the ``PromptedClassifier`` that was trained.
        classes_: (K,) names of the classes, in the order of the columns of ``predict_proba``.
    """

    def __init__(
        self,
        trainer: str | None = None,
        backbone: str | None = None,
        *,
        recipe: str | os.PathLike[str] | None = None,
        shots: int = SHOTS,
        seed: int = 1,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.trainer = trainer
        self.backbone = backbone
        self.recipe = recipe
        self.shots = shots
        self.seed = seed
        self.settings = settings

    def fit(self, images: Pictures, labels: Sequence[object]) -> "ClipClassifier":
        """Trains on N images and their N class names; numbers are refused, since CLIP reads the names.

        Raises:
            UserError: see ``PromptedClassifier.fit``.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.classifier_ = PromptedClassifier.fit(
                images, labels, folder=os.path.join(folder, "run"), **self.get_params()
            )
        self.classes_ = self.classifier_.classes_
        return self

    def predict(self, images: Pictures) -> numpy.ndarray:
        """Names (N,), each image's most probable class."""
        check_is_fitted(self)
        return numpy.array(self.classifier_.predict(images).labels)

    def predict_proba(self, images: Pictures) -> numpy.ndarray:
        """Probabilities (N, K) of the classes in the order of ``classes_``."""
        check_is_fitted(self)
        return self.classifier_.predict_proba(images)

"""FGVC-Aircraft in its own layout: ``fgvc_aircraft/images``, ``variants.txt`` and ``images_variant_{train,val,test}.txt``."""
import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase

from trainers.errors import UserError

from .fewshot import few_shot
from .splits import find_folder, make_datum


@DATASET_REGISTRY.register()
class FGVCAircraft(DatasetBase):
    """Labels are the lines of ``variants.txt``."""
    dataset_dir = "fgvc_aircraft"

    def __init__(self, cfg):
        self.dataset_dir = find_folder(cfg.DATASET.ROOT, self.dataset_dir)
        variants = {name: label for label, name in enumerate(self.read_lines("variants.txt"))}
        parts = [[self.read_image(line, variants) for line in self.read_lines(f"images_variant_{part}.txt")]
                 for part in ("train", "val", "test")]
        super().__init__(**few_shot(self, cfg, *parts))

    def read_lines(self, name):
        path = os.path.join(self.dataset_dir, name)
        if not os.path.isfile(path):
            raise UserError(f"{path} is missing: it comes with the data set's images")
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]

    def read_image(self, line, variants):
        """A line is ``image number variant``; variants have spaces."""
        number, _, variant = line.partition(" ")
        if variant not in variants:
            raise UserError(f"{self.dataset_dir}: {variant!r} is not in variants.txt")
        return make_datum(os.path.join(self.dataset_dir, "images", f"{number}.jpg"), variants[variant], variant)

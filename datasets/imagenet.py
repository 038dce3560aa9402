"""ImageNet in CoOp's layout: ``imagenet/images/{train,val}/<wnid>/…`` and ``imagenet/classnames.txt``."""
import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import listdir_nohidden

from trainers.errors import UserError

from .fewshot import few_shot
from .splits import find_folder


@DATASET_REGISTRY.register()
class ImageNet(DatasetBase):
    """Labels follow the sorted WordNet ids; the validation images are the test set, and serve as ``val`` too."""
    dataset_dir = "imagenet"

    def __init__(self, cfg):
        self.dataset_dir = find_folder(cfg.DATASET.ROOT, self.dataset_dir)
        classnames = read_classnames(os.path.join(self.dataset_dir, "classnames.txt"))
        folders = [find_folder(self.dataset_dir, "images", part) for part in ("train", "val")]
        wnids, tested = (class_folders(folder) for folder in folders)
        if wnids != tested:
            differing = sorted(set(wnids) ^ set(tested))
            raise UserError(f"{folders[0]} and {folders[1]} hold different classes ({', '.join(differing[:3])}{' …' if len(differing) > 3 else ''}): "
                            "unpack both wholly")
        train, test = (read_images(folder, wnids, classnames) for folder in folders)
        super().__init__(**few_shot(self, cfg, train, test, test))


def read_classnames(path):
    """WordNet id → class name, from lines ``wnid name``.

    Raises:
        UserError: the file is missing.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: CoOp's DATASETS.md says where to get it")
    with open(path, encoding="utf-8") as file:
        return dict(line.strip().split(" ", 1) for line in file if line.strip())


def class_folders(folder):
    return sorted(name for name in listdir_nohidden(folder) if os.path.isdir(os.path.join(folder, name)))


def read_images(folder, wnids, classnames):
    """All images of a folder of class folders, sorted; labels are positions in ``wnids``.

    Raises:
        UserError: a class folder has no name in ``classnames.txt``.
    """
    items = []
    for label, wnid in enumerate(wnids):
        if wnid not in classnames:
            raise UserError(f"{os.path.join(folder, wnid)} has no name in classnames.txt")
        items += [Datum(impath=os.path.join(folder, wnid, name), label=label, classname=classnames[wnid])
                  for name in listdir_nohidden(os.path.join(folder, wnid), sort=True)]
    return items

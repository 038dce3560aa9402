"""What a folder or a file says, in forms that tests compare."""

from types import SimpleNamespace

from labelling.checkout.image_folder import ImageFolder
from labelling.evaluate import labelling_of
from labelling.own_images import own_images
from labelling.table import read_table
from labelling.task import task_of

CFG = SimpleNamespace(
    DATASET=SimpleNamespace(
        NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all", SKIP_SMALL=False, GROUP_BY="", BOXES=False
    ),
    DATALOADER=SimpleNamespace(BROKEN_IMAGES="skip"),
    INPUT=SimpleNamespace(BACKGROUND="white"),
    SEED=1,
)


def read_labels(path):
    """Paths and names of the labels of pictures of one label each, in the table's order."""
    table = read_table(str(path), multi_label=False)
    labels = [table.classnames[label] for (label,) in table.labels]
    return SimpleNamespace(paths=table.paths, labels=labels, groups=table.groups, notes=table.notes)


def labelled_in(path):
    """Paths and names of the labels of the pictures that ``evaluate`` takes."""
    known = labelling_of(str(path), None, False)
    return [*known.pictures], [name for (name,) in known.names]


def read_label_sets(path):
    """File name → names of the labels of multi-label pictures."""
    table = read_table(str(path), multi_label=True)
    return {
        place.rpartition("/")[2]: {table.classnames[label] for label in own}
        for place, own in zip(table.paths, table.labels)
    }


def list_images(folder):
    return ImageFolder.list_images(str(folder))


def images_in(path, cfg, can_fold=False, multi_label=False, kept=None):
    """The images of a run on what a folder or a file says."""
    task = task_of(multi_label)
    return own_images(read_table(str(path), multi_label), task, cfg, can_fold, kept)

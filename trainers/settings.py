"""The settings of a run, each declared once, and the settings that methods share.

Of Dassl's keys the defaults stand in one file, dassl-lite's, which travels with this package: a run without
Dassl has the same ones. Here stand the values that the trainers take.
"""

from pathlib import Path

import yaml
from yacs.config import CfgNode

from .common.config_files import PACKAGE, leaves
from .common.setting import ANY, Setting, Settings, Takes, at_least, declare, larger_than, node_of

# a wheel has them in the package, a checkout beside it
CONFIG_FOLDERS = (PACKAGE / "dassls", PACKAGE.parent / "dassl-lite/dassl/config/data")
DEFAULTS: Path = next(path for path in CONFIG_FOLDERS if path.is_dir()) / "defaults.yaml"
DASSLS: dict[str, object] = dict(leaves(yaml.full_load(DEFAULTS.read_text("utf-8"))))

# Dassl's; a few are not in dassl-lite, which says so
TRANSFORMS: list[object] = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "random_crop",
    "center_crop",
    "randaugment",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment_fixmatch",
    "randaugment2",
    "random_translation",
    "cutout",
    "gaussian_noise",
    "instance_norm",
]
BATCH = at_least(1, 1000000)  # more is a slip of the hand
NUMBER = at_least(0, 1e38)  # as torch's numbers
EPOCH = at_least(-1, 1000000)

# Dassl's keys that are read here: the meaning of each, and the values that it takes.
READ: dict[str, tuple[str, Takes]] = {
    "OUTPUT_DIR": ("folder of what the run leaves", ANY),
    "RESUME": ("folder with checkpoints to go on from", ANY),
    "SEED": ("of all draws; below 0: not seeded", ANY),
    "USE_CUDA": ("whether a GPU is used, if there is one", ANY),
    "INPUT.SIZE": ("height and width of an image, in pixels", at_least(1, 2048)),
    "INPUT.INTERPOLATION": ("how images are resized", ["bilinear", "bicubic", "nearest"]),
    "INPUT.TRANSFORMS": ("what is done to an image", TRANSFORMS),
    # no CLIP takes images as they are
    "INPUT.NO_TRANSFORM": ("whether images stay as they are", [False]),
    "INPUT.PIXEL_MEAN": ("taken from red, green, blue in [0, 1]", ANY),
    "INPUT.PIXEL_STD": ("that red, green, blue are divided by then", larger_than(0)),
    "INPUT.CROP_PADDING": ("of random_crop: pixels on each side", at_least(0, 4096)),
    "INPUT.RRCROP_SCALE": (
        "of random_resized_crop: least and largest share of the area",
        larger_than(0, 1),
    ),
    "INPUT.RANDAUGMENT_N": ("operations of randaugment", at_least(0, 100)),
    "INPUT.RANDAUGMENT_M": ("their strength", at_least(0, 30)),
    "INPUT.COLORJITTER_B": ("of colorjitter: change of brightness", at_least(0, 1000)),
    "INPUT.COLORJITTER_C": ("of contrast", at_least(0, 1000)),
    "INPUT.COLORJITTER_S": ("of saturation", at_least(0, 1000)),
    "INPUT.COLORJITTER_H": ("of hue", at_least(0, 0.5)),
    "INPUT.RGS_P": ("probability of randomgrayscale", at_least(0, 1)),
    "INPUT.GB_P": ("probability of gaussian_blur", at_least(0, 1)),
    "INPUT.GB_K": ("of gaussian_blur: width of its kernel in pixels", at_least(1, 1001)),
    "DATASET.ROOT": ("folder of the data sets", ANY),
    "DATASET.NAME": ("data set", ANY),
    "DATASET.NUM_SHOTS": ("training images of a class; below 1: all", at_least(-1, 1000000000)),
    # each is a process
    "DATALOADER.NUM_WORKERS": ("processes that load images", at_least(0, 128)),
    "DATALOADER.TRAIN_X.BATCH_SIZE": ("training images in a step", BATCH),
    "DATALOADER.TEST.BATCH_SIZE": ("test images in a batch", BATCH),
    "MODEL.BACKBONE.NAME": ("the CLIP: its name or file", ANY),
    "OPTIM.NAME": ("optimiser", ["adam", "adamw", "amsgrad", "radam", "rmsprop", "sgd"]),
    "OPTIM.LR": ("learning rate", larger_than(0, 1e38)),
    "OPTIM.WEIGHT_DECAY": ("weight decay", NUMBER),
    "OPTIM.MOMENTUM": ("momentum, of sgd and rmsprop", NUMBER),
    "OPTIM.SGD_DAMPNING": ("dampening of sgd's momentum", NUMBER),
    "OPTIM.SGD_NESTEROV": ("whether sgd's momentum is Nesterov's", ANY),
    "OPTIM.RMSPROP_ALPHA": ("rmsprop's smoothing", at_least(0, 1)),
    "OPTIM.ADAM_BETA1": ("adam's smoothing of the gradient", at_least(0, 0.9999)),
    "OPTIM.ADAM_BETA2": ("adam's smoothing of its square", at_least(0, 0.9999)),
    "OPTIM.LR_SCHEDULER": ("how the learning rate falls", ["single_step", "cosine"]),
    "OPTIM.STEPSIZE": ("of single_step: epochs of a step; below 1: MAX_EPOCH", EPOCH),
    "OPTIM.GAMMA": ("of single_step: factor of a step", at_least(0, 1)),
    "OPTIM.MAX_EPOCH": ("epochs", at_least(1, 1000000)),
    "OPTIM.WARMUP_EPOCH": ("epochs of the warm-up; below 1: none", EPOCH),
    "OPTIM.WARMUP_TYPE": ("how the learning rate starts", ["constant", "linear"]),
    "OPTIM.WARMUP_CONS_LR": ("of constant: learning rate of the warm-up", NUMBER),
    "OPTIM.WARMUP_MIN_LR": ("of linear: learning rate that it starts from", NUMBER),
    "TRAIN.CHECKPOINT_FREQ": ("epochs from checkpoint to checkpoint; 0: the last", at_least(0)),
    "TRAIN.PRINT_FREQ": ("batches from line to line of the log", at_least(1)),
    "TEST.NO_TEST": ("whether the test after training is left out", ANY),
    "TEST.SPLIT": ("images that are tested", ANY),
    "TEST.FINAL_MODEL": ("which epoch's prompts are kept", ["last_step", "best_val"]),
    "TRAINER.NAME": ("trainer", ANY),
}
# Keys that Dassl alone reads, with the one value that a run takes; the others take any.
ONE_VALUE: dict[str, Takes] = {
    "DATALOADER.K_TRANSFORMS": [1],
    "MODEL.INIT_WEIGHTS": [""],  # a run's folder is given by --model-dir or --resume
    "OPTIM.WARMUP_RECOUNT": [True],
}
OF_DASSL_ALONE = {
    key: Setting(default, "Dassl's", ONE_VALUE.get(key, ANY))
    for key, default in DASSLS.items()
    if key not in READ
}
# Keys that the trainers read or advise beyond Dassl's.
BEYOND_DASSL = {
    "DEVICE": Setting(
        "auto",
        "what is computed on: auto (a GPU by USE_CUDA, else the CPU), cpu, cuda, cuda:1 or mps (Apple's, untried)",
    ),
    "DATASET.SUBSAMPLE_CLASSES": Setting(
        "all", "classes: all, or one half of them", ["all", "base", "new"]
    ),
    "DATASET.DESCRIPTIONS": Setting("", "file of sentences about each class: descriptions.py"),
    "DATASET.DESCRIPTIONS_HASH": Setting("", "of its content; set by itself"),
    "DATASET.SKIP_SMALL": Setting(
        False,
        "of one's own folder: whether classes with too few images to divide are left out",
    ),
    "DATASET.GROUP_BY": Setting(
        "",
        "of one's own images: which belong together: folder, a regular expression for names, or none; empty: copies",
    ),
    "DATASET.BOXES": Setting(
        False,
        "of one's own images: whether each box of COCO's or Label Studio's file is a picture, its crop",
    ),
    "INPUT.BACKGROUND": Setting(
        "",
        "a colour: transparent pictures are put on it, and all are turned as their EXIF data say; "
        "empty: as they are stored",
    ),
    "INPUT.DECODED_AT": Setting(
        0,
        "times SIZE: a JPEG is decoded at the smallest scale at which its sides have as much, and larger "
        "pictures are kept in about that size for random crops; 0: all as they are, exactly",
        at_least(0, 100),
    ),
    "INPUT.SQUASH": Setting(
        False,
        "whether a test image is resized to SIZE whatever its shape; else its centre is cut out",
    ),
    "INPUT.CROP_PCT": Setting(
        1.0,
        "the share of a resized test image's side that is cut out of its centre, as timm has it",
        larger_than(0, 1),
    ),
    "DATALOADER.BROKEN_IMAGES": Setting(
        "error",
        "of the data set's listing, images that can't be read or are missing: they end the run, or "
        "are left out",
        ["error", "skip"],
    ),
    "OPTIM.LEAST_STEPS": Setting(
        0,
        "steps that the epochs have together at least, each of all training images in batches of equal "
        "size; 0: batches of BATCH_SIZE, and the images left over sit out an epoch, as Dassl has it",
        NUMBER,
    ),
    "TRAIN.COMPILE": Setting(
        False,
        "whether torch.compile compiles the loss of a step: results are equal up to rounding, and the first step "
        "takes a minute",
    ),
    "TEST.OPEN": Setting(
        False,
        "whether base and new classes are compared among all of them: evaluation/open_world.py",
    ),
    "MODEL.BACKBONE.INTERPOLATE_POSITIONS": Setting(
        False, "whether INPUT.SIZE may be another than the backbone's"
    ),
}
# Of a run, by their names in the whole config; a method's own are declared in its file.
RUN = {key: Setting(DASSLS[key], *told) for key, told in READ.items()} | BEYOND_DASSL

# ---- shared by methods, in their own nodes ----

PRECISION = {
    "PREC": Setting("fp16", "fp32, amp or fp16, see precision.py", ["fp32", "amp", "fp16"])
}
ENCODER = {
    **PRECISION,
    "TEXT_CHUNK": Setting(
        0,
        "classes in one pass of the text encoder; fewer need less memory and more time; 0: all at once",
        at_least(0, 1000000),
    ),
}


def add_run_settings(cfg: CfgNode) -> None:
    """Declare the keys that the trainers read or advise beyond Dassl's; a key that a toolbox has declared
    itself keeps its value."""
    declare(cfg, BEYOND_DASSL)


def settings_of_run(cfg: CfgNode) -> Settings:
    """Return the settings that a config must have beside the nodes of methods and data sets: ``RUN``, and under Dassl the
    keys that it alone reads."""
    there = dict(leaves(cfg))
    return RUN | {key: setting for key, setting in OF_DASSL_ALONE.items() if key in there}


def run_config() -> CfgNode:
    """A new config of a run, without Dassl and without a method's node."""
    return node_of(RUN)

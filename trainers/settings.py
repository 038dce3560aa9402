"""The settings that methods share: in their own nodes, and those of a run that Dassl's defaults
lack."""

from collections.abc import Callable

from yacs.config import CfgNode

from .common.ranges import Range, above, at_least, note_ranges

# Of Dassl's keys those that are read here, with Dassl's defaults.
DASSLS = {
    "OUTPUT_DIR": "./output",
    "RESUME": "",
    "SEED": -1,
    "USE_CUDA": True,
    "INPUT": {
        "SIZE": (224, 224),
        "INTERPOLATION": "bilinear",
        "TRANSFORMS": (),
        "NO_TRANSFORM": False,
        "PIXEL_MEAN": [0.485, 0.456, 0.406],
        "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4,
        "RRCROP_SCALE": (0.08, 1.0),
        "RANDAUGMENT_N": 2,
        "RANDAUGMENT_M": 10,
        "COLORJITTER_B": 0.4,
        "COLORJITTER_C": 0.4,
        "COLORJITTER_S": 0.4,
        "COLORJITTER_H": 0.1,
        "RGS_P": 0.2,
        "GB_P": 0.5,
        "GB_K": 21,
    },
    "DATASET": {"ROOT": "", "NAME": "", "NUM_SHOTS": -1},
    "DATALOADER": {
        "NUM_WORKERS": 4,
        "TRAIN_X": {"BATCH_SIZE": 32},
        "TEST": {"BATCH_SIZE": 32},
    },
    "MODEL": {"BACKBONE": {"NAME": ""}},
    "OPTIM": {
        "NAME": "adam",
        "LR": 0.0003,
        "WEIGHT_DECAY": 0.0005,
        "MOMENTUM": 0.9,
        "SGD_DAMPNING": 0,
        "SGD_NESTEROV": False,
        "RMSPROP_ALPHA": 0.99,
        "ADAM_BETA1": 0.9,
        "ADAM_BETA2": 0.999,
        "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,),
        "GAMMA": 0.1,
        "MAX_EPOCH": 10,
        "WARMUP_EPOCH": -1,
        "WARMUP_TYPE": "linear",
        "WARMUP_CONS_LR": 1e-5,
        "WARMUP_MIN_LR": 1e-5,
    },
    "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10},
    "TEST": {"NO_TEST": False, "SPLIT": "test", "FINAL_MODEL": "last_step"},
    "TRAINER": {"NAME": ""},
}


# What the keys of a run take.
RANGES: dict[str, Range] = {
    "INPUT.SIZE": at_least(1, 2048),
    "INPUT.INTERPOLATION": ["bilinear", "bicubic", "nearest"],
    # Dassl's; a few are not in dassl-lite, which says so
    "INPUT.TRANSFORMS": [
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
    ],
    "INPUT.NO_TRANSFORM": [False],  # no CLIP takes images as they are
    "INPUT.PIXEL_STD": above(0),
    "INPUT.CROP_PADDING": at_least(0, 4096),
    "INPUT.RRCROP_SCALE": above(0, 1),
    "INPUT.RANDAUGMENT_N": at_least(0, 100),
    "INPUT.RANDAUGMENT_M": at_least(0, 30),
    "INPUT.COLORJITTER_H": at_least(0, 0.5),
    "INPUT.COLORJITTER_?": at_least(0, 1000),
    "INPUT.*_P": at_least(0, 1),
    "INPUT.GB_K": at_least(1, 1001),
    "DATASET.NUM_SHOTS": at_least(-1, 1000000000),
    "DATASET.SUBSAMPLE_CLASSES": ["all", "base", "new"],
    "DATASET.FACTORS.CORRELATED": [
        "background",
        "cast",
        "border",
        "position",
        "mark",
        "style",
        "companion",
    ],
    "DATASET.FACTORS.CORRELATION": at_least(0, 1),
    "DATASET.FACTORS.TEST": ["aligned", "independent", "reversed"],
    # one that can't be read ends a run, or is left out
    "DATALOADER.BROKEN_IMAGES": ["error", "skip"],
    "DATALOADER.K_TRANSFORMS": [1],
    "DATALOADER.NUM_WORKERS": at_least(0, 128),  # each is a process
    "DATALOADER.*.BATCH_SIZE": at_least(1, 1000000),  # more is a slip of the hand
    "MODEL.INIT_WEIGHTS": [""],  # a run's folder is given by --model-dir or --resume
    "OPTIM.NAME": ["adam", "adamw", "amsgrad", "radam", "rmsprop", "sgd"],
    "OPTIM.LR": above(0, 1e38),  # as torch's numbers
    "OPTIM.GAMMA": at_least(0, 1),
    "OPTIM.ADAM_BETA?": at_least(0, 0.9999),
    "OPTIM.RMSPROP_ALPHA": at_least(0, 1),
    "OPTIM.LR_SCHEDULER": ["single_step", "cosine"],
    "OPTIM.STEPSIZE": at_least(-1, 1000000),
    "OPTIM.WARMUP_TYPE": ["constant", "linear"],
    "OPTIM.WARMUP_RECOUNT": [True],
    "OPTIM.WARMUP_EPOCH": at_least(-1, 1000000),
    "OPTIM.MAX_EPOCH": at_least(1, 1000000),
    "OPTIM.*": at_least(0, 1e38),
    "TEST.FINAL_MODEL": ["last_step", "best_val"],
    "TRAIN.PRINT_FREQ": at_least(1),
    "TRAIN.CHECKPOINT_*": at_least(0),
}


def run_config() -> CfgNode:
    """A new config of a run, without Dassl; a method's own node is declared by its
    ``add_<name>_config``."""
    cfg = CfgNode(DASSLS).clone()
    add_run_settings(cfg)
    return cfg


def add_run_settings(cfg: CfgNode) -> None:
    """Declares what the trainers read or advise beyond Dassl's keys; a key that a toolbox has declared
    itself keeps its value."""
    for node, key, default in (
        (cfg.DATASET, "SUBSAMPLE_CLASSES", "all"),  # all | base | new
        (cfg.DATASET, "DESCRIPTIONS", ""),  # file of sentences about each class: descriptions.py
        (cfg.DATASET, "DESCRIPTIONS_HASH", ""),  # of its content; set by itself
        # of one's own folder: whether classes with too few images to divide are left out
        (cfg.DATASET, "SKIP_SMALL", False),
        # a colour: transparent pictures are put on it, and all are turned as their EXIF data say;
        # "": as they are stored
        (cfg.INPUT, "BACKGROUND", ""),
        # whether a test image is resized to SIZE whatever its shape; else its centre is cut out
        (cfg.INPUT, "SQUASH", False),
        # of the data set's listing: error | skip: images that can't be read or are missing are left out
        (cfg.DATALOADER, "BROKEN_IMAGES", "error"),
        # steps that the epochs have together at least, each of all training images in batches of equal
        # size; 0: batches of BATCH_SIZE, and the images left over sit out an epoch, as Dassl has it
        (cfg.OPTIM, "LEAST_STEPS", 0),
        # whether base and new classes are compared among all of them: evaluation/open_world.py
        (cfg.TEST, "OPEN", False),
        # whether INPUT.SIZE may be another than the backbone's
        (cfg.MODEL.BACKBONE, "INTERPOLATE_POSITIONS", False),
    ):
        if key not in node:
            node[key] = default
    note_ranges(cfg, **RANGES)


def add_precision(node: CfgNode, default: str = "fp16") -> None:
    """Declares ``PREC`` in ``cfg.TRAINER.<NAME>``."""
    node.PREC = default  # fp32 | amp | fp16, see precision.py
    note_ranges(node, PREC=["fp32", "amp", "fp16"])


def add_encoder_settings(node: CfgNode) -> None:
    """Declares ``PREC`` and ``TEXT_CHUNK`` in ``cfg.TRAINER.<NAME>``."""
    add_precision(node)
    node.TEXT_CHUNK = 0  # classes in one pass of the text encoder; fewer need less memory and more time; 0: all at once
    note_ranges(node, TEXT_CHUNK=at_least(0, 1000000))


def node_of(add_config: Callable[[CfgNode], None]) -> CfgNode:
    """A new node of a method's settings, with what its ``add_<name>_config`` declares."""
    cfg = run_config()
    add_config(cfg)
    (node,) = [value for value in cfg.TRAINER.values() if isinstance(value, CfgNode)]
    return node

"""The settings that methods share: in their own nodes, and those of a run that Dassl's defaults
lack."""

from collections.abc import Callable

from yacs.config import CfgNode

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
        # of one's own folder: in how many folds all of few pictures are tested; 0: always a part
        (cfg.DATASET, "FOLDS", 0),
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


def add_encoder_settings(node: CfgNode) -> None:
    """Declares ``PREC`` and ``TEXT_CHUNK`` in ``cfg.TRAINER.<NAME>``."""
    node.PREC = "fp16"  # fp32 | amp | fp16, see precision.py
    node.TEXT_CHUNK = 0  # classes in one pass of the text encoder; fewer need less memory and more time; 0: all at once


def node_of(add_config: Callable[[CfgNode], None]) -> CfgNode:
    """A new node of a method's settings, with what its ``add_<name>_config`` declares."""
    cfg = run_config()
    add_config(cfg)
    (node,) = [value for value in cfg.TRAINER.values() if isinstance(value, CfgNode)]
    return node

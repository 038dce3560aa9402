"""What numbers and names a config's keys take, whatever asks for them: one table, and one check of a config or a record's.

What depends on other settings, the data or the CLIP is checked where it is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .config_files import leaves
from .errors import UserError, nearest

MANY = 10**6  # epochs, steps, images of a batch: more is a slip of the hand
WIDTH = 2**16  # of a layer
TRANSFORMS = (
    "random_flip random_resized_crop normalize random_crop center_crop randaugment colorjitter randomgrayscale gaussian_blur "
    "imagenet_policy cifar10_policy svhn_policy randaugment_fixmatch randaugment2 random_translation cutout gaussian_noise instance_norm"
).split()  # Dassl's; a few are not in dassl-lite, which says so


@dataclass(frozen=True)
class Range:
    """Numbers from ``least`` to ``most``, both included unless ``is_open`` leaves out ``least``; of a list each element, in rising order if ``rises``."""

    least: float = -math.inf
    most: float = math.inf
    is_open: bool = False
    rises: bool = False

    def complaint(self, value: float) -> str:
        """What is wrong with a number; "" where it is within."""
        if not value <= self.most:  # NaN too
            return f"must be at most {self.most:g}"
        if self.is_open:
            return "" if value > self.least else f"must be above {self.least:g}"
        if value >= self.least:
            return ""
        return "must not be negative" if self.least == 0 else f"must be at least {self.least:g}"


POSITIVE = Range(0, is_open=True)
NOT_NEGATIVE = Range(0)
SHARE = Range(0, 1)
COUNT = Range(1, MANY)
COUNT_OR_NONE = Range(0, MANY)
LAYERS, LAYERS_OR_NONE = Range(1, 1000), Range(0, 1000)

RANGES: dict[str, Range | tuple[object, ...]] = {  # pattern of keys → what they take
    "INPUT.SIZE": Range(1, 4096),
    "INPUT.INTERPOLATION": ("bilinear", "bicubic", "nearest"),
    "INPUT.TRANSFORMS": tuple(TRANSFORMS),
    "INPUT.PIXEL_STD": POSITIVE,
    "INPUT.CROP_PADDING": Range(0, 4096),
    "INPUT.RRCROP_SCALE": Range(0, 1, is_open=True, rises=True),
    "INPUT.RANDAUGMENT_N": Range(0, 100),
    "INPUT.RANDAUGMENT_M": Range(0, 30),
    "INPUT.COLORJITTER_H": Range(0, 0.5),
    "INPUT.COLORJITTER_?": Range(0, 1000),
    "INPUT.*_P": SHARE,
    "INPUT.GB_K": Range(1, 1001),
    "DATASET.NUM_SHOTS": Range(-1, 10**9),
    "DATASET.SUBSAMPLE_CLASSES": ("all", "base", "new"),
    "DATASET.FACTORS.CORRELATED": ("background", "cast", "border", "position", "mark"),
    "DATASET.FACTORS.CORRELATION": SHARE,
    "DATASET.FACTORS.TEST": ("aligned", "independent", "reversed"),
    "DATALOADER.BROKEN_IMAGES": (
        "error",
        "skip",
    ),  # one that can't be read ends a run, or is left out
    "DATALOADER.NUM_WORKERS": Range(0, 128),  # each is a process
    "DATALOADER.*.BATCH_SIZE": COUNT,
    "OPTIM.LR": POSITIVE,
    "OPTIM.ADAM_BETA?": Range(0, 0.9999),
    "OPTIM.RMSPROP_ALPHA": SHARE,
    "OPTIM.LR_SCHEDULER": ("single_step", "cosine"),
    "OPTIM.STEPSIZE": Range(-1, MANY),
    "OPTIM.WARMUP_TYPE": ("constant", "linear"),
    "OPTIM.WARMUP_RECOUNT": (True,),
    "OPTIM.WARMUP_EPOCH": Range(-1, MANY),
    "OPTIM.MAX_EPOCH": COUNT,
    "OPTIM.*": NOT_NEGATIVE,
    "TEST.FINAL_MODEL": ("last_step", "best_val"),
    "TRAIN.PRINT_FREQ": Range(1),
    "TRAIN.CHECKPOINT_*": NOT_NEGATIVE,
    "TRAINER.*.PREC": ("fp32", "amp", "fp16"),
    "TRAINER.*.TEXT_CHUNK": COUNT_OR_NONE,
    "TRAINER.*.N_TEMPLATES": LAYERS,
    "TRAINER.*.PROMPT_MODALITY": ("dual", "text"),
    "TRAINER.*.AUGMENTATION": (1, 2, None),
    "TRAINER.*.FUSION": ("dempster", "mean_probability", "sum_logits"),
    "TRAINER.*.RELIABILITY": ("fitted", "independent"),
    "TRAINER.*.LOSS": ("evidential", "cross_entropy"),
    "TRAINER.*.CLASS_TOKEN_POSITION": ("end", "middle", "front"),
    "TRAINER.*.ENCODER": ("both", "text", "vision"),
    "TRAINER.VPT.*_VISION": LAYERS,
    "TRAINER.*_VISION": LAYERS_OR_NONE,
    "TRAINER.*.N_CTX*": LAYERS,
    "TRAINER.*.N_REP_TOKENS": LAYERS,
    "TRAINER.*.PROMPT_DEPTH*": LAYERS,
    "TRAINER.*.LAYER": LAYERS,
    "TRAINER.*_START": LAYERS,
    "TRAINER.*_END": LAYERS,
    "TRAINER.*_DIM": Range(1, WIDTH),
    "TRAINER.*.RANK": Range(1, WIDTH),
    "TRAINER.*.DROPOUT": Range(0, 0.999),
    "TRAINER.*.HEAD_WEIGHT": SHARE,
    "TRAINER.*_WEIGHT": NOT_NEGATIVE,
    "TRAINER.*.W": NOT_NEGATIVE,
    "TRAINER.*.LAMBDA": NOT_NEGATIVE,
    "TRAINER.*.T": POSITIVE,
    "TRAINER.*.GPA_STD": Range(1),
    "TRAINER.*.ADAM_EPS": POSITIVE,
    "TRAINER.*LR": NOT_NEGATIVE,
    "TRAINER.MMRL.SCALE": SHARE,
    "TRAINER.*_SCALE": POSITIVE,
    "TRAINER.*.C": POSITIVE,
    "TRAINER.GDA.ALPHA": NOT_NEGATIVE,
    "TRAINER.*.INIT_*": NOT_NEGATIVE,
    "TRAINER.*.SEARCH_STEP": Range(1, 10**4),
    "TRAINER.*.AUGMENT_EPOCH": COUNT,
    "TRAINER.*.STEPS": COUNT,
    "TRAINER.*.VIEWS": COUNT,
}


def check_ranges(cfg: Mapping[str, object], path: str = "") -> None:
    """
    Args:
        cfg: a config node, or the same of a record as plain dicts; its values have their types, see ``config_files.check_types``.
        path: name of the node with a full stop, for messages.

    Raises:
        UserError: the first key whose value is out of its range, the value, and what it takes.
    """
    for key, value in leaves(cfg, path):
        check_range(key, value)


def check_range(key: str, value: object) -> None:
    """Checks a value against the first pattern of ``RANGES`` that fits its key, if one does."""
    taken = next((taken for pattern, taken in RANGES.items() if fnmatchcase(key, pattern)), ())
    elements = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(taken, Range):
        numbers = [element for element in elements if isinstance(element, (int, float))]
        for complaint in filter(None, map(taken.complaint, numbers)):
            raise UserError(f"{key} is {value}, it {complaint}")
        if taken.rises and numbers != sorted(numbers):
            raise UserError(f"{key} is {value}, its numbers must rise")
        return
    for element in elements if taken else ():
        if element not in taken:
            raise UserError(
                f"{key} is {element!r}, it takes one of {', '.join(map(str, taken))}"
                f"{nearest(element, taken)}"
            )

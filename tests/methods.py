"""Facts of the methods that tests alone need."""

import yaml

from trainers import METHODS, method_class, method_node
from trainers.common.config_files import CONFIGS

# settings of the smallest method that is complete, for a CLIP of three image layers
SMALL = {
    "CDC": {"PROMPT_DEPTH": 2},
    "CLIPLoRA": {"DROPOUT": 0.0},  # chunks of classes draw other elements to drop
    "CoCoOp": {"N_CTX": 4},
    "CoOp": {"N_CTX": 4},
    "CoPrompt": {"PROMPT_DEPTH": 2},
    "DePTCoOp": {"N_CTX": 4},
    "DePTKgCoOp": {"CTX_INIT": ""},
    "DePTMaPLe": {"PROMPT_DEPTH": 2},
    "DePTPromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2, "GPA_MEAN": 2},
    "GDA": {"AUGMENT_EPOCH": 2},
    "IVLP": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "KgCoOp": {"CTX_INIT": ""},
    "LinearProbe": {},
    "MMA": {"ADAPTER_START": 2, "ADAPTER_END": 3},
    "MMRL": {"N_REP_TOKENS": 2, "REP_DIM": 16, "REP_START": 2, "REP_END": 3},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "ProGrad": {"N_CTX": 6},
    "ProLIP": {"STEPS": 3, "VIEWS": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2, "GPA_MEAN": 2},
    "TCP": {"LAYER": 2},
    "TipAdapter": {"AUGMENT_EPOCH": 2},
    "TipAdapterF": {"AUGMENT_EPOCH": 2},
    "VPT": {"PROMPT_DEPTH_VISION": 2},
    "ZeroshotCLIP": {},
    "ZeroshotCLIP2": {},
}
# classifiers of image features, fitted in seconds
FITTED = [
    name
    for name in METHODS
    if method_class(name).learns and not method_class(name).learns_in_epochs
]
# whole numbers that the shape of what is learned follows from
SHAPES = ("N_CTX", "N_CTX_TEXT", "N_CTX_VISION", "RANK", "ADAPTER_DIM", "N_REP_TOKENS")


def small_settings(name):
    """The settings of the smallest method of a name; where none are known those of its recipe for our
    tiny CLIP, which has as many layers."""
    if name in SMALL:
        return SMALL[name]
    recipe = yaml.safe_load((CONFIGS / f"trainers/{name}/tiny.yaml").read_text())
    return recipe.get("TRAINER", {}).get(name.upper(), {})


def shape_setting_of(name):
    """The first of ``SHAPES`` that a method has; None where the data alone say how large it is."""
    return next((key for key in SHAPES if key in method_node(name)), None)

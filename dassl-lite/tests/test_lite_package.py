"""Names and config keys that user code finds, and that ours takes no more than Dassl 0.6.3 has."""

import ast
import importlib
from pathlib import Path

import dassl
import pytest
import yaml
from dassl.config import cfg_default, clean_cfg, get_cfg_default
from yacs.config import CfgNode as CN

NAMES = yaml.safe_load(Path(__file__).with_name("names.yaml").read_text("utf-8"))

DEFAULTS = """
VERSION 1 | OUTPUT_DIR './output' | RESUME '' | SEED -1 | USE_CUDA True | VERBOSE True | INPUT.SIZE (224, 224)
INPUT.INTERPOLATION 'bilinear' | INPUT.TRANSFORMS () | INPUT.NO_TRANSFORM False | INPUT.PIXEL_MEAN [0.485, 0.456, 0.406]
INPUT.PIXEL_STD [0.229, 0.224, 0.225] | INPUT.CROP_PADDING 4 | INPUT.RRCROP_SCALE (0.08, 1.0) | INPUT.RANDAUGMENT_N 2
INPUT.RANDAUGMENT_M 10 | INPUT.COLORJITTER_B 0.4 | INPUT.COLORJITTER_C 0.4 | INPUT.COLORJITTER_S 0.4 | INPUT.COLORJITTER_H 0.1
INPUT.RGS_P 0.2 | INPUT.GB_P 0.5 | INPUT.GB_K 21 | DATASET.ROOT '' | DATASET.NAME '' | DATASET.SOURCE_DOMAINS ()
DATASET.TARGET_DOMAINS () | DATASET.NUM_SHOTS -1 | DATALOADER.NUM_WORKERS 4 | DATALOADER.K_TRANSFORMS 1
DATALOADER.RETURN_IMG0 False | DATALOADER.TRAIN_X.SAMPLER 'RandomSampler' | DATALOADER.TRAIN_X.BATCH_SIZE 32
DATALOADER.TEST.SAMPLER 'SequentialSampler' | DATALOADER.TEST.BATCH_SIZE 32 | OPTIM.NAME 'adam' | OPTIM.LR 0.0003
OPTIM.WEIGHT_DECAY 5e-4 | OPTIM.MOMENTUM 0.9 | OPTIM.SGD_DAMPNING 0 | OPTIM.SGD_NESTEROV False | OPTIM.RMSPROP_ALPHA 0.99
OPTIM.ADAM_BETA1 0.9 | OPTIM.ADAM_BETA2 0.999 | OPTIM.LR_SCHEDULER 'single_step' | OPTIM.STEPSIZE (-1,) | OPTIM.GAMMA 0.1
OPTIM.MAX_EPOCH 10 | OPTIM.WARMUP_EPOCH -1 | OPTIM.WARMUP_TYPE 'linear' | OPTIM.WARMUP_CONS_LR 1e-5 | OPTIM.WARMUP_MIN_LR 1e-5
OPTIM.WARMUP_RECOUNT True | TRAIN.CHECKPOINT_FREQ 0 | TRAIN.PRINT_FREQ 10 | TEST.EVALUATOR 'Classification'
TEST.PER_CLASS_RESULT False | TEST.COMPUTE_CMAT False | TEST.NO_TEST False | TEST.SPLIT 'test' | TEST.FINAL_MODEL 'last_step'
MODEL.INIT_WEIGHTS '' | MODEL.BACKBONE.NAME '' | MODEL.BACKBONE.PRETRAINED True | MODEL.HEAD.NAME '' | TRAINER.NAME ''
"""


@pytest.mark.parametrize("module", NAMES)
def test_every_import_path_of_coop_style_code_exists(module):
    for name in NAMES[module].split():
        assert hasattr(importlib.import_module(module), name), name
    assert dassl.__version__ == "0.6.3"
    assert dassl.is_lite


def leaves(node, path=""):
    """Yields ``A.B`` and its value for all values of a node and of those in it."""
    for key, value in node.items():
        if isinstance(value, CN):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_defaults_are_dassls_and_keys_of_parts_that_are_not_here_are_refused():
    pairs = (entry.split(" ", 1) for entry in DEFAULTS.strip().replace("\n", " | ").split(" | "))
    expected = {key: ast.literal_eval(value) for key, value in pairs}
    defaults = dict(leaves(get_cfg_default()))
    assert defaults == expected
    assert [*map(type, defaults.values())] == [type(expected[key]) for key in defaults]
    for key in ("INPUT.CUTOUT_N", "DATALOADER.TRAIN_U.BATCH_SIZE", "TRAINER.FIXMATCH.WEIGHT_U"):
        with pytest.raises(AssertionError, match="Non-existent key"):
            get_cfg_default().merge_from_list([key, "1"])


def test_a_config_is_a_fresh_copy_and_can_be_cleaned_of_other_trainers_nodes():
    cfg = get_cfg_default()
    cfg.INPUT.PIXEL_MEAN.append(1.0)
    for name in ("COOP", "MAPLE", "CDC"):
        cfg.TRAINER[name] = CN({"PREC": "fp16"})
    assert get_cfg_default().INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406]
    assert "COOP" not in cfg_default.TRAINER
    clean_cfg(cfg, "MaPLe")
    assert sorted(cfg.TRAINER) == ["MAPLE", "NAME"]

"""The config: Dassl's keys and defaults, yacs' rules."""

import pytest
from dassl.config import cfg_default, clean_cfg, get_cfg_default
from yacs.config import CfgNode as CN


def test_defaults_are_dassls():
    cfg = get_cfg_default()
    expected = {
        "VERSION": 1,
        "OUTPUT_DIR": "./output",
        "RESUME": "",
        "SEED": -1,
        "USE_CUDA": True,
        "VERBOSE": True,
        "INPUT.SIZE": (224, 224),
        "INPUT.INTERPOLATION": "bilinear",
        "INPUT.TRANSFORMS": (),
        "INPUT.NO_TRANSFORM": False,
        "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406],
        "INPUT.PIXEL_STD": [0.229, 0.224, 0.225],
        "INPUT.CROP_PADDING": 4,
        "INPUT.RRCROP_SCALE": (0.08, 1.0),
        "INPUT.RANDAUGMENT_N": 2,
        "INPUT.RANDAUGMENT_M": 10,
        "INPUT.COLORJITTER_B": 0.4,
        "INPUT.COLORJITTER_C": 0.4,
        "INPUT.COLORJITTER_S": 0.4,
        "INPUT.COLORJITTER_H": 0.1,
        "INPUT.RGS_P": 0.2,
        "INPUT.GB_P": 0.5,
        "INPUT.GB_K": 21,
        "DATASET.ROOT": "",
        "DATASET.NAME": "",
        "DATASET.SOURCE_DOMAINS": (),
        "DATASET.TARGET_DOMAINS": (),
        "DATASET.NUM_SHOTS": -1,
        "DATALOADER.NUM_WORKERS": 4,
        "DATALOADER.K_TRANSFORMS": 1,
        "DATALOADER.RETURN_IMG0": False,
        "DATALOADER.TRAIN_X.SAMPLER": "RandomSampler",
        "DATALOADER.TRAIN_X.BATCH_SIZE": 32,
        "DATALOADER.TEST.SAMPLER": "SequentialSampler",
        "DATALOADER.TEST.BATCH_SIZE": 32,
        "OPTIM.NAME": "adam",
        "OPTIM.LR": 0.0003,
        "OPTIM.WEIGHT_DECAY": 5e-4,
        "OPTIM.MOMENTUM": 0.9,
        "OPTIM.SGD_DAMPNING": 0,
        "OPTIM.SGD_NESTEROV": False,
        "OPTIM.RMSPROP_ALPHA": 0.99,
        "OPTIM.ADAM_BETA1": 0.9,
        "OPTIM.ADAM_BETA2": 0.999,
        "OPTIM.LR_SCHEDULER": "single_step",
        "OPTIM.STEPSIZE": (-1,),
        "OPTIM.GAMMA": 0.1,
        "OPTIM.MAX_EPOCH": 10,
        "OPTIM.WARMUP_EPOCH": -1,
        "OPTIM.WARMUP_TYPE": "linear",
        "OPTIM.WARMUP_CONS_LR": 1e-5,
        "OPTIM.WARMUP_MIN_LR": 1e-5,
        "OPTIM.WARMUP_RECOUNT": True,
        "TRAIN.CHECKPOINT_FREQ": 0,
        "TRAIN.PRINT_FREQ": 10,
        "TEST.EVALUATOR": "Classification",
        "TEST.PER_CLASS_RESULT": False,
        "TEST.COMPUTE_CMAT": False,
        "TEST.NO_TEST": False,
        "TEST.SPLIT": "test",
        "TEST.FINAL_MODEL": "last_step",
        "MODEL.INIT_WEIGHTS": "",
        "MODEL.BACKBONE.NAME": "",
        "MODEL.BACKBONE.PRETRAINED": True,
        "MODEL.HEAD.NAME": "",
        "TRAINER.NAME": "",
    }

    def leaves(node, path=()):
        for key, value in node.items():
            yield from (
                leaves(value, (*path, key))
                if isinstance(value, CN)
                else [(".".join((*path, key)), value)]
            )

    found = dict(leaves(cfg))
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


def test_a_config_is_a_fresh_copy():
    cfg = get_cfg_default()
    cfg.INPUT.PIXEL_MEAN.append(1.0)
    cfg.TRAINER.COOP = CN({"N_CTX": 16})
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    assert get_cfg_default().INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406]
    assert "COOP" not in cfg_default.TRAINER
    assert "SUBSAMPLE_CLASSES" not in cfg_default.DATASET


def test_a_file_gives_tuples_floats_and_lists(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "INPUT:\n  SIZE: (64, 64)\n  TRANSFORMS: [random_flip, normalize]\n  PIXEL_MEAN: (0.1, 0.2, 0.3)\n"
        "OPTIM:\n  WARMUP_CONS_LR: 1e-6\n  LR_SCHEDULER: cosine\n"
    )
    cfg = get_cfg_default()
    cfg.merge_from_file(str(path))
    assert cfg.INPUT.SIZE == (64, 64)
    assert cfg.INPUT.TRANSFORMS == ("random_flip", "normalize")
    assert cfg.INPUT.PIXEL_MEAN == [0.1, 0.2, 0.3]
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-6
    assert cfg.OPTIM.LR_SCHEDULER == "cosine"


@pytest.mark.parametrize(
    "key, value",
    [("OPTIM.LR", "1"), ("OPTIM.MAX_EPOCH", "1.5"), ("VERBOSE", "0"), ("DATASET.NAME", "12")],
)
def test_a_value_of_another_type_is_refused(key, value):
    with pytest.raises(ValueError, match="Type mismatch"):
        get_cfg_default().merge_from_list([key, value])


def test_unknown_keys_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("OPTIM:\n  LEARNING_RATE: 0.1\n")
    with pytest.raises(KeyError, match="Non-existent config key: OPTIM.LEARNING_RATE"):
        get_cfg_default().merge_from_file(str(path))
    with pytest.raises(AssertionError, match="Non-existent key: OPTIM.LEARNING_RATE"):
        get_cfg_default().merge_from_list(["OPTIM.LEARNING_RATE", "0.1"])
    with pytest.raises(AssertionError, match="odd length"):
        get_cfg_default().merge_from_list(["OPTIM.LR"])


@pytest.mark.parametrize(
    "key", ["INPUT.CUTOUT_N", "DATALOADER.TRAIN_U.BATCH_SIZE", "TRAINER.FIXMATCH.WEIGHT_U"]
)
def test_keys_of_parts_that_are_not_here_are_refused_not_ignored(key):
    with pytest.raises(AssertionError, match="Non-existent key"):
        get_cfg_default().merge_from_list([key, "1"])


def test_a_frozen_config_cannot_be_changed():
    cfg = get_cfg_default()
    cfg.freeze()
    with pytest.raises(
        AttributeError, match="Attempted to set SEED to 1, but CfgNode is immutable"
    ):
        cfg.SEED = 1


def test_clean_cfg_keeps_only_the_named_trainers_node():
    cfg = get_cfg_default()
    for name in ("COOP", "MAPLE", "CDC"):
        cfg.TRAINER[name] = CN({"PREC": "fp16"})
    clean_cfg(cfg, "MaPLe")
    assert sorted(cfg.TRAINER.keys()) == ["MAPLE", "NAME"]


def test_a_config_prints_sorted_and_indented():
    lines = str(get_cfg_default()).splitlines()
    top = [line for line in lines if not line.startswith(" ")]
    assert top == sorted(top)
    assert "  MAX_EPOCH: 10" in lines

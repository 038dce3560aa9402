"""Every config key that dassl-lite reads, with Dassl 0.6.3's default.

Keys of parts that are not here (other trainers, AutoAugment, ...) are left out, so that setting one is an error.
"""

from yacs.config import CfgNode as CN

_C = CN(
    {
        "VERSION": 1,
        "OUTPUT_DIR": "./output",
        "RESUME": "",  # a folder with checkpoints to go on from
        "SEED": -1,  # negative: not seeded
        "USE_CUDA": True,
        "VERBOSE": True,
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
        "DATASET": {  # read by the data set classes
            "ROOT": "",
            "NAME": "",
            "SOURCE_DOMAINS": (),
            "TARGET_DOMAINS": (),
            "NUM_SHOTS": -1,  # less than 1: all images
        },
        "DATALOADER": {
            "NUM_WORKERS": 4,
            "K_TRANSFORMS": 1,  # augmented views of each training image
            "RETURN_IMG0": False,  # also return the unaugmented image
            "TRAIN_X": {
                "SAMPLER": "RandomSampler",
                "BATCH_SIZE": 32,
            },
            "TEST": {
                "SAMPLER": "SequentialSampler",
                "BATCH_SIZE": 32,
            },
        },
        "MODEL": {
            "INIT_WEIGHTS": "",
            "BACKBONE": {
                "NAME": "",
                "PRETRAINED": True,
            },
            "HEAD": {
                "NAME": "",
            },
        },
        "OPTIM": {
            "NAME": "adam",
            "LR": 0.0003,
            "WEIGHT_DECAY": 5e-4,
            "MOMENTUM": 0.9,
            "SGD_DAMPNING": 0,  # spelt like this in Dassl
            "SGD_NESTEROV": False,
            "RMSPROP_ALPHA": 0.99,
            "ADAM_BETA1": 0.9,
            "ADAM_BETA2": 0.999,
            "LR_SCHEDULER": "single_step",
            "STEPSIZE": (-1,),  # single_step: the last one, not positive = MAX_EPOCH
            "GAMMA": 0.1,
            "MAX_EPOCH": 10,
            "WARMUP_EPOCH": -1,  # not positive: no warm-up
            "WARMUP_TYPE": "linear",
            "WARMUP_CONS_LR": 1e-5,
            "WARMUP_MIN_LR": 1e-5,
            "WARMUP_RECOUNT": True,
        },
        "TRAIN": {
            "CHECKPOINT_FREQ": 0,  # epochs; 0: only after the last
            "PRINT_FREQ": 10,  # batches
        },
        "TEST": {
            "EVALUATOR": "Classification",
            "PER_CLASS_RESULT": False,
            "NO_TEST": False,
            "SPLIT": "test",
            "FINAL_MODEL": "last_step",
        },
        "TRAINER": {
            "NAME": "",
        },
    }
)

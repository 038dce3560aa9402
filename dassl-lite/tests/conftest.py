"""A tiny data set of generated images, and a trainer over it written the way a CoOp user writes one."""

import contextlib
import sys

import numpy as np
import pytest
import torch.nn as nn
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed
from PIL import Image
from torch.nn import functional as F

CLASSES = ["red_dot", "green_dot", "blue_dot"]
IMAGES = [
    (split, c, i) for split, n in (("train", 8), ("test", 5)) for c in range(3) for i in range(n)
]


class _Blobs(DatasetBase):
    def __init__(self, cfg, **kwargs):
        items = [
            Datum(f"{cfg.DATASET.ROOT}/{split}_{c}_{i}.png", c, i % 2, CLASSES[c])
            for split, c, i in IMAGES
        ]
        train = [item for item in items if "/train_" in item.impath]
        test = [item for item in items if "/test_" in item.impath]
        train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, test=test, **{k: v(train, test) for k, v in kwargs.items()})


@DATASET_REGISTRY.register()
class LiteBlobs(_Blobs):
    def __init__(self, cfg):
        super().__init__(cfg, val=lambda train, test: test[::2])


@DATASET_REGISTRY.register()
class LiteBlobsNoVal(_Blobs):
    pass


@TRAINER_REGISTRY.register()
class LiteLinear(TrainerX):
    """Linear classifier with dropout, registered under another name than its class."""

    stop_at = None  # (epoch, batch) at which the "machine" goes down

    class Down(Exception):
        """The machine is down."""

    def build_model(self):
        cfg = self.cfg
        size = 3 * cfg.INPUT.SIZE[0] * cfg.INPUT.SIZE[1]
        self.model = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(size, len(self.dm.dataset.classnames))
        )
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)
        self.lrs = []

    def forward_backward(self, batch):
        if (self.epoch, self.batch_idx) == self.stop_at:
            raise self.Down
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        if self.batch_idx == 0:
            self.lrs.append(self.get_current_lr())
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)


@TRAINER_REGISTRY.register()
class LiteUnregistered(TrainerX):
    """Like ZeroshotCLIP: a model, but none registered."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.num_classes))


@pytest.fixture(autouse=True)
def stdout_is_restored(monkeypatch):
    """Whatever a test makes of sys.stdout ends with it."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)


@pytest.fixture(scope="session")
def image_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("blobs")
    rng = np.random.RandomState(0)
    for split, c, i in IMAGES:
        pixels = rng.randint(0, 120, (10, 12, 3))
        pixels[..., c] += 100
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{split}_{c}_{i}.png")
    return str(root)


@pytest.fixture
def make_cfg(image_root, tmp_path):
    """A config for the tiny data set; keyword TRAIN__PRINT_FREQ=1 sets TRAIN.PRINT_FREQ."""

    def make(output="run", **options):
        cfg = get_cfg_default()
        values = {
            "DATASET.ROOT": image_root,
            "DATASET.NAME": "LiteBlobs",
            "TRAINER.NAME": "LiteLinear",
            "OUTPUT_DIR": str(tmp_path / output),
            "INPUT.SIZE": (8, 8),
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": 7,  # 24 images: 3 batches, 3 images dropped
            "OPTIM.NAME": "sgd",
            "OPTIM.LR": 0.002,
            "OPTIM.LR_SCHEDULER": "cosine",
            "OPTIM.MAX_EPOCH": 2,
            "USE_CUDA": False,
        } | {key.replace("__", "."): value for key, value in options.items()}
        cfg.merge_from_list([word for pair in values.items() for word in pair])
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def train(capsys):
    """Seed, build, train; returns the trainer and what it printed."""

    def run(cfg, seed=1, stop_at=None):
        set_random_seed(seed)
        capsys.readouterr()
        trainer = build_trainer(cfg)
        trainer.stop_at = stop_at
        with contextlib.suppress(LiteLinear.Down):
            trainer.train()
        return trainer, capsys.readouterr().out

    return run

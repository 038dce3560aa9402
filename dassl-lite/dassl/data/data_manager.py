"""Data set, transforms and loaders of one run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision.transforms as T
from PIL.Image import Image
from tabulate import tabulate
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from yacs.config import CfgNode

from dassl.data.datasets import Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import read_image

Transform = Callable[[Any], Any]  # a PIL image → what the next step takes
Transforms = Transform | list[Transform] | tuple[Transform, ...]


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Transforms | None = None,
    is_train: bool = True,
    dataset_wrapper: type["DatasetWrapper"] | None = None,
) -> DataLoader[Any]:
    """A loader of `data_source`; training drops an incomplete last batch if there is a whole one.

    `n_domain` and `n_ins` are for Dassl's samplers that are not here.
    """
    if data_source is None or len(data_source) == 0:
        raise AssertionError(f"There are no images to {'train' if is_train else 'test'} on")
    wrapper = DatasetWrapper if dataset_wrapper is None else dataset_wrapper
    loader = DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, cfg, data_source),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(loader) == 0:
        raise AssertionError(
            f"The data loader has no batch: {len(data_source)} images, batch size {batch_size}"
        )
    return loader


class DataManager:
    """Builds everything from the config, in an order that user code's random draws depend on."""

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transforms | None = None,
        custom_tfm_test: Transforms | None = None,
        dataset_wrapper: type["DatasetWrapper"] | None = None,
    ) -> None:
        dataset = build_dataset(cfg)

        if custom_tfm_train is None:
            tfm_train = build_transform(cfg, is_train=True)
        else:
            print("* Using custom transform for training")
            tfm_train = custom_tfm_train
        if custom_tfm_test is None:
            tfm_test = build_transform(cfg, is_train=False)
        else:
            print("* Using custom transform for testing")
            tfm_test = custom_tfm_test

        def test_loader(source: list[Datum]) -> DataLoader[Any]:
            settings = cfg.DATALOADER.TEST
            return build_data_loader(
                cfg,
                settings.SAMPLER,
                source,
                settings.BATCH_SIZE,
                tfm=tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
            )

        self.dataset = dataset
        settings = cfg.DATALOADER.TRAIN_X
        self.train_loader_x = build_data_loader(
            cfg,
            settings.SAMPLER,
            dataset.train_x,
            settings.BATCH_SIZE,
            tfm=tfm_train,
            is_train=True,
            dataset_wrapper=dataset_wrapper,
        )
        self.val_loader = test_loader(dataset.val) if dataset.val else None
        self.test_loader = test_loader(dataset.test)

        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname

        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        table = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            table.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            table.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        table.append(["# classes", f"{self.num_classes:,}"])
        table.append(["# train_x", f"{len(self.dataset.train_x):,}"])
        if self.dataset.val:
            table.append(["# val", f"{len(self.dataset.val):,}"])
        table.append(["# test", f"{len(self.dataset.test):,}"])
        print(tabulate(table))


class DatasetWrapper(TorchDataset[dict[str, Any]]):
    """Items as dicts: label, domain, impath, index, and the image under each transform (img, img2, ...)."""

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Transforms | None = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform  # a transform, or a list or tuple of them
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1  # views of each training image
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm < 1:
            raise ValueError(f"DATALOADER.K_TRANSFORMS must be at least 1, got {self.k_tfm}")
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"Cannot transform the image {self.k_tfm} times because transform is None"
            )

        # turns the unaugmented image into a tensor of the same size and range
        steps = [
            T.Resize(cfg.INPUT.SIZE, interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]),
            T.ToTensor(),
        ]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        img0 = read_image(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        if self.transform is None:
            output["img"] = img0
        elif isinstance(self.transform, (list, tuple)):
            for i, tfm in enumerate(self.transform):
                output[f"img{i + 1}" if i else "img"] = self._views(tfm, img0)
        else:
            output["img"] = self._views(self.transform, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _views(self, tfm: Transform, img0: Image) -> Any:
        views = [tfm(img0) for _ in range(self.k_tfm)]
        return views[0] if len(views) == 1 else views

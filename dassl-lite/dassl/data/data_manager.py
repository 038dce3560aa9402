"""Data set, transforms and loaders of one run."""

from collections.abc import Callable, Sequence

import torch
import torchvision.transforms as T
from PIL import Image
from tabulate import tabulate
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from yacs.config import CfgNode

from dassl.data.datasets import Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import read_image

Transform = Callable[[Image.Image], object]
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
    dataset_wrapper: Callable[..., TorchDataset[dict[str, object]]] | None = None,
) -> DataLoader[dict[str, object]]:
    """A loader of `data_source`; training drops an incomplete last batch if there is a whole one.

    `n_domain` and `n_ins` are for Dassl's samplers that are not here.
    """
    if not data_source:
        raise AssertionError(f"There are no images to {'train' if is_train else 'test'} on")
    wrapper = dataset_wrapper or DatasetWrapper
    return DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, cfg, data_source),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )


class DataManager:
    """Builds everything from the config, in an order that user code's random draws depend on."""

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transforms | None = None,
        custom_tfm_test: Transforms | None = None,
        dataset_wrapper: Callable[..., TorchDataset[dict[str, object]]] | None = None,
    ) -> None:
        self.dataset = dataset = build_dataset(cfg)
        tfms = {True: custom_tfm_train, False: custom_tfm_test}
        for is_train, custom in tfms.items():
            if custom is None:
                tfms[is_train] = build_transform(cfg, is_train)
            else:
                print(f"* Using custom transform for {'training' if is_train else 'testing'}")

        def loader(source: list[Datum], is_train: bool = False) -> DataLoader[dict[str, object]]:
            node = cfg.DATALOADER.TRAIN_X if is_train else cfg.DATALOADER.TEST
            return build_data_loader(
                cfg,
                node.SAMPLER,
                source,
                node.BATCH_SIZE,
                tfm=tfms[is_train],
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
            )

        self.train_loader_x = loader(dataset.train_x, is_train=True)
        self.val_loader = loader(dataset.val) if dataset.val else None
        self.test_loader = loader(dataset.test)
        self.num_classes: int = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname: dict[int, str] = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print a table; an empty part has no row."""
        data = self.dataset
        counts = {"train_x": data.train_x, "val": data.val, "test": data.test}
        rows = [
            ("Dataset", cfg.DATASET.NAME),
            ("Source", cfg.DATASET.SOURCE_DOMAINS),
            ("Target", cfg.DATASET.TARGET_DOMAINS),
            ("# classes", f"{self.num_classes:,}"),
            *((f"# {part}", f"{len(items):,}") for part, items in counts.items() if items),
        ]
        print(tabulate([row for row in rows if row[1]]))


class DatasetWrapper(TorchDataset[dict[str, object]]):
    """Items as dicts: label, domain, impath, index, and the image under each transform (img, img2,
    ...)."""

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
        # turns the unaugmented image into a tensor of the same size and range
        inp = cfg.INPUT
        steps = [T.Resize(inp.SIZE, INTERPOLATION_MODES[inp.INTERPOLATION]), T.ToTensor()]
        if "normalize" in inp.TRANSFORMS:
            steps.append(T.Normalize(inp.PIXEL_MEAN, inp.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, object]:
        item = self.data_source[idx]
        img0 = read_image(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        tfms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
        for i, tfm in enumerate(tfms):
            views = [tfm(img0) if tfm else img0 for _ in range(self.k_tfm)]
            output[f"img{i + 1}" if i else "img"] = views if self.k_tfm > 1 else views[0]
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

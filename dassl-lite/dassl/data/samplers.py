"""In which order, and how mixed, the images come."""

import copy
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.data.datasets import Datum

AVAI_SAMPLERS = ["RandomDomainSampler", "SeqDomainSampler", "RandomSampler", "SequentialSampler", "RandomClassSampler"]


class _DomainSampler(Sampler[int]):
    """Batches of equally many images from each of `n_domain` domains; ends when a domain runs short."""

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_domain: int | None) -> None:
        self.data_source = data_source
        self.indices = defaultdict(list)  # domain -> positions
        for i, item in enumerate(data_source):
            self.indices[item.domain].append(i)
        self.domains = list(self.indices)
        if n_domain is None or n_domain <= 0:
            n_domain = len(self.domains)
        if batch_size % n_domain != 0:
            raise AssertionError(f"The batch size ({batch_size}) must be a multiple of the number of domains ({n_domain})")
        self.n_domain = n_domain
        self.batch_size = batch_size
        self.n_img_per_domain = batch_size // n_domain
        short = [domain for domain, positions in self.indices.items() if len(positions) < self.n_img_per_domain]
        if short:
            raise ValueError(f"A batch takes {self.n_img_per_domain} images of each domain, domain {short[0]} has fewer")
        self.length = len(list(iter(self)))

    def choose(self) -> list[int]:
        """The domains of the next batch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        left = copy.deepcopy(self.indices)
        n = self.n_img_per_domain
        order = []
        while True:
            for domain in self.choose():
                picked = random.sample(left[domain], n)
                order += picked
                for i in picked:
                    left[domain].remove(i)
            if any(len(positions) < n for positions in left.values()):
                return iter(order)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_DomainSampler):
    """`n_domain` domains at random for each batch (all in random order if not positive)."""

    def choose(self) -> list[int]:
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """All domains in sorted order in each batch."""

    def __init__(self, data_source: Sequence[Datum], batch_size: int) -> None:
        super().__init__(data_source, batch_size, None)

    def choose(self) -> list[int]:
        return sorted(self.domains)


class RandomClassSampler(Sampler[int]):
    """Batches of `batch_size // n_ins` classes with `n_ins` images each; small classes are filled by repetition."""

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_ins: int) -> None:
        if batch_size < n_ins:
            raise ValueError(f"The batch size ({batch_size}) must not be less than the images of each class ({n_ins})")
        self.data_source = data_source
        self.batch_size = batch_size
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        self.index_dic = defaultdict(list)  # label -> positions
        for i, item in enumerate(data_source):
            self.index_dic[item.label].append(i)
        self.labels = list(self.index_dic)
        if len(self.labels) < self.ncls_per_batch:
            raise AssertionError(f"{self.ncls_per_batch} classes are needed for a batch, there are {len(self.labels)}")
        self.length = len(list(iter(self)))

    def __iter__(self) -> Iterator[int]:
        chunks = defaultdict(list)  # label -> lists of n_ins positions
        for label in self.labels:
            positions = copy.deepcopy(self.index_dic[label])
            if len(positions) < self.n_ins:
                positions = np.random.choice(positions, size=self.n_ins, replace=True).tolist()
            random.shuffle(positions)
            whole = len(positions) // self.n_ins * self.n_ins
            chunks[label] = [positions[i : i + self.n_ins] for i in range(0, whole, self.n_ins)]
        left = copy.deepcopy(self.labels)
        order = []
        while len(left) >= self.ncls_per_batch:
            for label in random.sample(left, self.ncls_per_batch):
                order += chunks[label].pop(0)
                if not chunks[label]:
                    left.remove(label)
        return iter(order)

    def __len__(self) -> int:
        return self.length


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler[int]:
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(data_source, batch_size, n_ins)
    raise ValueError(f"Unknown sampler type: {sampler_type} (known: {', '.join(AVAI_SAMPLERS)})")

"""In which order the images come: torch's own samplers by name."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.data.datasets import Datum


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] = (),
    **settings: Any,
) -> Sampler[int]:
    """`settings` are those of Dassl's other samplers, which are not here."""
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    raise ValueError(
        f"Unknown sampler type: {sampler_type} (known: RandomSampler, SequentialSampler)"
    )

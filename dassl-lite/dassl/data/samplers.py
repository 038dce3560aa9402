"""In which order the images come: torch's own samplers by name."""

from collections.abc import Callable, Sequence

from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.data.datasets import Datum
from dassl.utils import check_availability


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] = (),
    **settings: object,
) -> Sampler[int]:
    """Build a sampler by name; `settings` belong to Dassl's other samplers, which are not here."""
    samplers: dict[str, Callable[[Sequence[Datum]], Sampler[int]]]
    samplers = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}
    check_availability(sampler_type, list(samplers))
    return samplers[sampler_type](data_source)

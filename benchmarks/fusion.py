"""Dempster's rule over M opinions: the closed form against the pairwise loop with its K × K table."""

from collections.abc import Iterator
from dataclasses import dataclass

from measure import DEVICE, GIGA, Entry, Repetitions, Work, compare, main, matmul_peak, peak_memory
import torch
from torch import Tensor

import reference
from trainers.evidence import dempster

IMPLEMENTATIONS = {"usual": reference.dempster, "ours": dempster}


@dataclass(frozen=True)
class Setting:
    """M templates, B images, K classes."""

    templates: int = 4
    batch: int = 100
    classes: int = 1000
    repetitions: Repetitions = Repetitions(most=50, seconds=30)


FULL = Setting()
QUICK = Setting(batch=10, classes=200, repetitions=Repetitions(most=5, seconds=2))


def build_fusion(setting: Setting, name: str, passes: str) -> Work:
    """The fused log-evidence (B, K), or its gradient (M, B, K), as a function without arguments; for ``peak_memory`` too."""
    torch.manual_seed(0)
    log_evidences = torch.randn(
        setting.templates, setting.batch, setting.classes, device=DEVICE
    )  # (M, B, K)
    fuse = IMPLEMENTATIONS[name]
    if passes == "forward":
        return lambda: fuse(log_evidences).log_evidence
    log_evidences.requires_grad_()

    def both() -> Tensor | None:
        log_evidences.grad = None
        fuse(log_evidences).log_evidence.mean().backward()
        return log_evidences.grad

    return both


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak = matmul_peak()
    sizes = f"M = {setting.templates}, B = {setting.batch}, K = {setting.classes}"
    for passes in ("forward", "forward and backward"):
        steps = {name: build_fusion(setting, name, passes) for name in IMPLEMENTATIONS}
        yield f"Fusion, {sizes}, {passes}", compare(steps, setting.repetitions, peak)
    yield f"Memory that fusion adds, {sizes}, forward and backward", list(memory_rows(setting))


def memory_rows(setting: Setting) -> Iterator[Entry]:
    for name in IMPLEMENTATIONS:
        memory = peak_memory(build_fusion, setting, name, "forward and backward")
        yield {
            "implementation": name,
            "memory GB": memory.added / GIGA if memory else "does not fit",
        }


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)

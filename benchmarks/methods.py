"""What a training step of each trainer costs at ViT-B/16's size: learned parameters, arithmetic, time and memory, for the same number of images.

Recipes are ``vit_b16``'s but for the batch. Left out are trainers that learn nothing in steps, which are fitted to kept features.
"""

import contextlib
import io
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from measure import GIGA, Entry, Repetitions, alternate, count_flops, log, main, peak_memory
from dassl.engine import TRAINER_REGISTRY
from models import SMALL, VIT_B16, build_trainer, training_batch
from step import PRECISION, Method, build_step, step_of
from step import Setting as StepSetting

from trainers import METHODS
from trainers.families import FeatureTrainer


def learning() -> tuple[str, ...]:
    """Names of the trainers that learn in steps."""
    classes = {name: TRAINER_REGISTRY.get(name) for name in METHODS}
    return tuple(
        name for name, of in classes.items() if of.learns and not issubclass(of, FeatureTrainer)
    )


@dataclass(frozen=True)
class Setting(StepSetting):
    """As for a training step, with the trainers (all: empty), K, and B."""

    trainers: tuple[str, ...] = ()
    classes: int = 100
    batch: int = 4


FULL = Setting(VIT_B16, {}, repetitions=Repetitions(least=3, most=3))
QUICK = Setting(
    SMALL,
    {},
    trainers=("CoOp", "MaPLe"),
    classes=20,
    depth=3,
    repetitions=Repetitions(least=1, most=1),
)


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    rows = [row(name, setting) for name in setting.trainers or learning()]
    yield f"A training step of {setting.batch} images, K = {setting.classes}, {PRECISION}", rows


def row(name: str, setting: Setting) -> Entry:
    log.info("%s", name)
    method = Method(name, "vit_b16", setting.batch, views=1)
    trainer = build_trainer(
        name, setting.shape, setting.classes, setting.options(method, PRECISION), method.recipe
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Dassl prints what it builds
        method = replace(method, views=len(trainer.training_views.transforms))
    step = step_of(
        trainer, training_batch(method.batch, method.views, setting.shape, setting.classes), True
    )
    step()  # what is encoded once in a run is no cost of a step
    flops = count_flops(step)
    seconds = statistics.median(alternate({name: step}, setting.repetitions)[name])
    learned, _ = trainer.count_parameters()
    memory = peak_memory(build_step, setting, method, True, setting.classes, PRECISION)
    found = {
        "trainer": name,
        "learned parameters": learned,
        "views": method.views,
        "GFLOP": flops / GIGA,
        "s a step": seconds,
        "memory added GB": "does not fit" if memory is None else memory.added / GIGA,
    }
    log.info("%s", found)  # the table comes last: what is measured is not lost with it
    return found


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)

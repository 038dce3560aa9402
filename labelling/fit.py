"""The one road from pictures to a run: ``train.py --images``, ``cdc-train`` and
``PromptedClassifier.fit`` go it, without Dassl."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator

import torch

from trainers.common.console import logged_to, show_messages
from trainers.common.record_file import Record, tested_on
from trainers.data.loader import Images
from trainers.data.random_state import seed_all
from trainers.engine.folder import LOG, folder_of_run
from trainers.engine.run import Run
from trainers.engine.run_record import versions
from trainers.evaluation.figures import wilson

from .defaults import completed
from .own_run import build_run, config_of_images
from .request import OwnRun, check_images

log = logging.getLogger(__name__)


def fit_folder(asked: OwnRun) -> None:
    """Makes the run of a folder of class folders, if it is not done.

    Raises:
        UserError: the input can't work.
    """
    with opened(asked) as run:
        make(run)


@contextlib.contextmanager
def opened(
    asked: OwnRun,
    others: Iterable[str] = (),
    logger: logging.Logger | None = None,
    known: Images | None = None,
) -> Iterator[Run]:
    """The run that is asked for, to be made or to test with, in its folder: to the end of the block
    that is locked, and what is said goes into its ``log.txt`` as well.

    Args:
        others: folders of runs, "" for none, whose trainer and CLIP it takes where none is given.
        logger: whose messages are meant; None: this package's.
        known: images of another run, see ``build_run``.

    Raises:
        UserError: the input can't work.
    """
    check_images(asked.images)
    show_messages()
    asked, reasons = completed(asked, [*filter(None, others), asked.folder])
    cfg = config_of_images(asked)
    folder = asked.folder
    with folder_of_run("the output folder", folder), searching_convolutions():
        path = os.path.join(folder, LOG)
        with logged_to(path, logger) as file:
            given = "\n".join(f"{key}: {value}" for key, value in vars(asked).items())
            file.write(
                f"** Asked for **\n{given}\n** Config **\n{cfg}\n** System **\n{machine()}\n"
            )
            log.info("Config, versions and all that follows: %s", path)
            seed_all(asked.seed)
            shots = cfg.DATASET.NUM_SHOTS
            most = (
                f"up to {shots} training images per class" if shots >= 1 else "all training images"
            )
            log.info(
                "Your images: %s, %s, recipe %s, results in %s",
                asked.images,
                most,
                asked.recipe,
                folder,
            )
            for sentence in reasons:
                log.info("%s", sentence)
            run = build_run(cfg, asked.recipe, known)
            file.write(f"** Training images **\n{run.loaders.augmented}\n")
            run.log_images()
            yield run


def make(run: Run) -> None:
    """Makes a run, if it is not done."""
    if run.is_done():
        log.info(
            "Done already: %s; to train again, delete that folder, or give another output folder",
            run.cfg.OUTPUT_DIR,
        )
        return
    run.say_minutes()
    run.make()


def said_accuracy(record: Record) -> str:
    """How accurate a run is, in a sentence without its full stop; "" of one that was not tested."""
    metrics = record["metrics"].get(record["config"]["TEST"]["SPLIT"])
    if metrics is None:
        return ""
    images = metrics["images"]
    low, high = wilson(round(metrics["accuracy"] / 100 * images), images)
    return (
        f"Accuracy: {metrics['accuracy']:.1f} % of {tested_on(record, images)} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def machine() -> str:
    """What the numbers depend on besides the config, in lines."""
    known = "\n".join(f"{name}: {version}" for name, version in versions().items())
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    built = f"{torch.__config__.show()}{torch.__config__.parallel_info()}"
    return f"{known}\nGPUs: {', '.join(gpus) or 'none'}\n{built}"


@contextlib.contextmanager
def searching_convolutions() -> Iterator[None]:
    """Lets cuDNN look for the fastest convolutions, to the end of the block."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = torch.cuda.is_available()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before

"""MethodTrainer: a ``Run`` as a trainer of Dassl's.

A method's file ends with ``CDC = registered(CDCMethod)``, which makes its trainer, ``trainer_of``, and
registers it. Its settings are ``cfg.TRAINER.<NAME>``, the trainer's name in capitals. The run
is in ``run.py``, the training loop in ``fit.py``.
"""

from weakref import proxy

import torchvision.transforms as T
from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import Tensor
from yacs.config import CfgNode

from .common.config_files import check_values
from .common.console import show_messages
from .common.environment import usable_cores
from .data.images import images_of
from .data.loader import CheckedImages, Loaders, for_any_machine, prepare_workers
from .data.transforms import pixels_of_test, steps_of_training, template_views
from .devices import device_of
from .engine.build import build_method, check_settings, declared_settings
from .engine.checkpoint import MODEL_NAME, epoch_name
from .engine.checks import check_data, check_run
from .engine.run import Run
from .evaluation.prediction import Prediction
from .method import Method
from .settings import add_run_settings, settings_of_run


class MethodTrainer(TrainerX):
    """Builds data and method from a config as Dassl does, and leaves the rest to its run.

    Attributes:
        method: the ``Method`` that a subclass trains.
        model: the one of this run.
        loaders: its images, from Dassl's ``dm``.
        run: the run that trains, resumes, tests and leaves the record.
    """

    method: type[Method]
    model: Method

    def __init__(self, cfg: CfgNode) -> None:
        show_messages()
        add_run_settings(cfg)  # another toolbox's config may not have them
        super().__init__(cfg)

    # ---- build ----

    def check_cfg(self, cfg: CfgNode) -> None:
        check_settings(self.method, cfg)
        check_values(cfg, settings_of_run(cfg))
        check_run(cfg)

    def build_data_loader(self) -> None:
        cfg = self.cfg
        steps = steps_of_training(cfg)
        shown = pixels_of_test(cfg.INPUT)
        views = template_views(
            steps, cfg.INPUT, *self.method.views(declared_settings(self.method, cfg))
        )
        workers = cfg.DATALOADER.NUM_WORKERS
        of_machine = cfg.clone()
        of_machine.defrost()
        of_machine.DATALOADER.NUM_WORKERS = min(workers, usable_cores())
        self.dm = dm = DataManager(
            of_machine, custom_tfm_train=views, custom_tfm_test=shown, dataset_wrapper=CheckedImages
        )
        self.train_loader_x = for_any_machine(dm.train_loader_x, cfg.OPTIM, workers)
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        for loader in filter(None, (self.train_loader_x, dm.val_loader, dm.test_loader)):
            prepare_workers(loader)
        self.num_classes = dm.num_classes
        self.lab2cname = dm.lab2cname
        self.num_source_domains = dm.num_source_domains
        images = images_of(dm.dataset)
        check_data(cfg, images)
        self.loaders = Loaders(
            cfg,
            images,
            train=self.train_loader_x,
            val=dm.val_loader,
            test=dm.test_loader,
            views=views,
            augmented=T.Compose(steps),
            shown=shown,
        )

    def build_model(self) -> None:
        classnames = list(self.loaders.images.classnames)
        self.device = device_of(self.cfg)
        self.model = build_method(self.method, self.cfg, classnames, self.device)
        # a cycle of trainer and run would keep both, and CLIP, in memory after their last use
        trainer = proxy(self)
        self.run = Run(self.cfg, self.loaders, self.model, lambda *given: trainer.evaluated(*given))
        if self.model.learns_in_epochs:
            self.optim = self.run.optimizer
            self.sched = self.run.schedule
            self.register_model(MODEL_NAME, self.model.learner, self.optim, self.sched)
        elif self.model.learner is not None:
            self.register_model(MODEL_NAME, self.model.learner)

    # ---- training and tests ----

    def train(self) -> None:  # type: ignore[override]  # as SimpleTrainer's
        learns = self.model.learner is not None
        if learns:
            self.run.read_descriptions()
            self.before_train()  # resumes, or refuses to
        self.run.train()
        self.run.keep_validation_answers()
        if learns:
            self.after_train()  # tests
        elif not self.cfg.TEST.NO_TEST:
            self.test()
        if self.cfg.TEST.NO_TEST:
            self.run.evaluation.write_record()

    def test(self, split: str | None = None) -> float:
        """Test, by ``Run.test``."""
        return self.run.test(split)

    def evaluated(self, split: str, answers: Prediction, labels: Tensor) -> float:
        """Return the first number that Dassl's evaluator makes of answers."""
        self.evaluator.reset()
        self.evaluator.process(answers.probability, labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.run.epoch)
        return float(next(iter(results.values())))

    # ---- saving ----

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Writes the checkpoint after an epoch, from 0, into the run's folder."""
        self.run.epoch = epoch
        self.run.save(model_name or epoch_name(epoch + 1), val_result)

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume, by ``Run.resume``."""
        return self.run.resume(directory)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load prompts for a test, by ``Run.load``."""
        self.run.load(directory, epoch)


def trainer_of(method: type[Method]) -> type[MethodTrainer]:
    """The trainer of ``<Name>Method``, a class of its own called ``<Name>``, in Dassl's registry.

    Raises:
        KeyError: another one is registered under that name.
    """
    name = method.name()
    facts = {"method": method, "__module__": method.__module__, "__doc__": method.__doc__}
    trainer = type(name, (MethodTrainer,), facts)
    TRAINER_REGISTRY.register()(trainer)
    return trainer

"""PromptTrainer: what every prompt-learning method shares, so that its own file holds only what it adds.

A method derives from ``PromptTrainer``, names its config node by its own registered name in capitals, and overrides

- ``build_prompt_learner``: the module with the learnable parts; called without arguments it returns ``Prompts``,
- ``loss`` (default: cross-entropy) and ``predict`` (default: softmax), for methods that have their own,
- ``scores``, where texts depend on the image, and ``training_state``, where training has a memory beyond the prompts.
"""
import logging
import os
import shutil
import statistics
import time
from functools import cached_property

import torch
import torch.nn.functional as F
from dassl.data import DataManager
from dassl.engine import TrainerX
from dassl.optim import build_optimizer
from torch.utils.checkpoint import checkpoint as recomputed
from tqdm import tqdm

from . import checkpoint
from .checkpoint import BEST
from .checks import check_at_least, check_data, check_pixels, check_run, validates_on_test_images
from .data import CheckedImages
from .errors import UserError
from .precision import Precision, check_precision
from .prediction import Prediction, Scores, measure, per_image
from .prompting.backbone import load_backbone
from .run_record import remove_record, tensor_hash, write_predictions, write_record
from .schedule import build_schedule
from .templates import hand_crafted_template

log = logging.getLogger(__name__)

MODEL_NAME = "prompt_learner"


class PromptTrainer(TrainerX):
    """Trains prompts for a frozen CLIP: build, precision, schedule, checkpoints, evaluation, run record.

    Args:
        cfg: the run's config.
        classnames: K names to build the model for. It can then answer, but has no data to train or be tested on. Without: those of the
            config's data set, which is loaded.

    Attributes:
        learns: whether there is anything to train.
    """
    learns = True

    def __init__(self, cfg, classnames=None):
        self.classnames = classnames
        super().__init__(cfg)

    # ---- what a method overrides ----

    def build_prompt_learner(self, backbone):
        """The learnable ``nn.Module``, or None where nothing is learned."""
        raise NotImplementedError

    def loss(self, scores, labels):
        """Loss of a training batch.

        Args:
            scores: ``Scores`` of B images, labels: (B,).

        Returns:
            scalar tensor, dict of further figures for the log.
        """
        return F.cross_entropy(scores.logits[0], labels), {}

    def predict(self, logits):
        """``Prediction`` from (M, B, K) fp32 logits of test images."""
        return Prediction(logits[0].softmax(dim=-1))

    def training_views(self):
        """A list of transforms, one a template, or one for all (whose output ``parse_batch_train`` takes), or None for Dassl's own."""
        return None

    def hand_crafted_template(self):
        """The prompt with ``{}`` for the class name that ``hand_crafted`` encodes."""
        return hand_crafted_template(self.cfg.DATASET.NAME)

    def encode_prompts(self):
        """What is the same for all images: text features (M, K, E) and the prompts (None where nothing is learned)."""
        prompts = self.prompt_learner()
        return self.encode_texts(prompts), prompts

    def scores(self, images):
        """``Scores`` of images (V, B, 3, H, W)."""
        text_features, prompts = self.encoded or self.encode_prompts()
        image_features = self.encode_images(images, prompts)
        return Scores(self.logits(image_features, text_features), image_features, text_features, images)

    def training_state(self):
        """What a method's training remembers beyond the prompts, for the checkpoint: tensors, numbers, dicts and lists of them."""
        return {}

    def restore_training_state(self, state):
        """Takes back what ``training_state`` gave."""

    # ---- the frozen CLIP; features are normalised and fp32 ----

    @cached_property
    def hand_crafted(self):
        """Features (K, E) of the hand-crafted prompt of each class, encoded once a run."""
        with torch.no_grad(), self.precision.autocast():
            return self.backbone.encode_classes(self.hand_crafted_template(), self.classnames)

    def encode_texts(self, prompts):
        """Features (M, K, E) of the classes under prompts, ``TEXT_CHUNK`` classes at a time, which the backward pass encodes again."""
        suffix, end, chunk = prompts.suffix, prompts.end, self.settings.TEXT_CHUNK
        if chunk == 0:
            features = self.backbone.text(prompts.prefix, suffix, end, prompts.deep_text)
        else:
            features = torch.cat([recomputed(self.backbone.text, prompts.prefix, *part, prompts.deep_text, use_reentrant=False)
                                  for part in zip(suffix.split(chunk, dim=1), end.split(chunk, dim=1))], dim=1)
        return F.normalize(features.float(), dim=-1)

    def encode_images(self, images, prompts=None):
        """Features (M, B, E) of images (V, B, 3, H, W); (V, B, E) where the image encoder is not prompted."""
        visual, deep_visual = (None, ()) if prompts is None else (prompts.visual, prompts.deep_visual)
        return F.normalize(self.backbone.image(images, visual, deep_visual).float(), dim=-1)

    def logits(self, image_features, text_features):
        """τ · cos, (M or 1, B, E) and (M, K, E) → (M, B, K), always in fp32."""
        with torch.autocast(self.device.type, enabled=False):
            return self.backbone.logit_scale * image_features @ text_features.transpose(1, 2)

    # ---- build ----

    @classmethod
    def node(cls, cfg):
        """The method's own config node, ``cfg.TRAINER.<NAME>``.

        Raises:
            UserError: nobody declared it.
        """
        name = cls.__name__
        if name.upper() not in cfg.TRAINER:
            raise UserError(f"cfg.TRAINER.{name.upper()} is not declared: call add_{name.lower()}_config(cfg) in extend_cfg")
        return cfg.TRAINER[name.upper()]

    @property
    def settings(self):
        return self.node(self.cfg)

    @property
    def path(self):
        """The node's name for messages, ``TRAINER.<NAME>``."""
        return f"TRAINER.{type(self).__name__.upper()}"

    def check_cfg(self, cfg):
        check_precision(self.node(cfg).PREC)
        if "TEXT_CHUNK" in self.node(cfg):
            check_at_least(0, self.path, self.node(cfg), "TEXT_CHUNK")
        check_run(cfg)

    def build_data_loader(self):
        if self.classnames is not None:
            self.num_classes, self.lab2cname = len(self.classnames), dict(enumerate(self.classnames))
            return
        self.dm = dm = DataManager(self.cfg, custom_tfm_train=self.training_views(), dataset_wrapper=CheckedImages)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.classnames = list(dm.dataset.classnames)
        check_data(self.cfg, dm)

    def build_model(self):
        cfg = self.cfg
        self.precision = Precision(self.settings.PREC, self.device)
        backbone = load_backbone(cfg.MODEL.BACKBONE.NAME)
        if cfg.MODEL.BACKBONE.get("INTERPOLATE_POSITIONS", False):  # another toolbox's config may not have it
            backbone.image.interpolate_positions(cfg.INPUT.SIZE[0])
        check_pixels(cfg, backbone)
        self.backbone_hash = tensor_hash(backbone.signature())
        self.prompt_learner = self.build_prompt_learner(backbone)
        self.backbone = backbone.to(self.device, self.precision.weights_dtype)
        self.metrics, self.seconds = {}, {"train": 0.0, "test": 0.0}
        self.step_seconds = []  # of each training step since this process began, without the waiting for its batch
        self.answer_rates = []  # images per second of each batch of the last class list that was tested, without loading and texts
        self.is_training = False
        self.encoded = None  # what encode_prompts gave, while a class list is being tested
        if self.prompt_learner is not None:
            self.prompt_learner.to(self.device)
            self.optim = build_optimizer(self.prompt_learner, cfg.OPTIM)
            self.sched = build_schedule(self.optim, cfg.OPTIM)
            self.register_model(MODEL_NAME, self.prompt_learner, self.optim, self.sched)
        log.info("%s: %s learnable parameters, %s in all", type(self).__name__, *map("{:,}".format, self.count_parameters()))

    def count_parameters(self):
        """Numbers of learnable parameters and of all, the backbone's included."""
        learnable = 0 if self.prompt_learner is None else sum(p.numel() for p in self.prompt_learner.parameters() if p.requires_grad)
        return learnable, learnable + sum(p.numel() for p in self.backbone.parameters())

    # ---- training ----

    def train(self):
        if self.prompt_learner is None:
            log.info("%s learns nothing: only tested", type(self).__name__)
            remove_record(self.output_dir)
            self.keep_validation_answers()
            self.test()
            return
        self.progress = None
        try:
            super().train()
        finally:
            if self.progress is not None:
                self.progress.close()  # an error's message starts on a line of its own

    def before_train(self):
        super().before_train()  # resumes, or refuses to
        remove_record(self.output_dir)
        self.is_training = True
        self.train_started = time.monotonic()
        if self.train_loader_x.num_workers > 0:
            self.train_loader_x.dataset.decode_ahead()
        steps = len(self.train_loader_x)
        self.progress = tqdm(total=self.max_epoch * steps, initial=self.start_epoch * steps, unit="step", mininterval=1,
                             desc=f"{type(self).__name__} on {self.cfg.DATASET.NAME}, seed {self.cfg.SEED}", dynamic_ncols=True)

    def parse_batch_train(self, batch):
        """Images (V, B, 3, H, W), one entry a view, and labels (B,)."""
        views = [batch["img"]]
        while f"img{len(views) + 1}" in batch:  # Dassl's names for the further views
            views.append(batch[f"img{len(views) + 1}"])
        return torch.stack([view.to(self.device, non_blocking=True) for view in views]), batch["label"].to(self.device)

    def parse_batch_test(self, batch):
        return batch["img"].to(self.device)[None], batch["label"].to(self.device)

    def forward_backward(self, batch):
        started = time.perf_counter()
        images, labels = self.parse_batch_train(batch)
        with self.precision.autocast():
            scores = self.scores(images)
        loss, figures = self.loss(scores, labels)
        self.detect_anomaly(loss)
        self.precision.step(loss, self.optim)
        with torch.no_grad():
            right = self.predict(scores.logits).probability.argmax(dim=1) == labels
        self.progress.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        figures = {"loss": loss.item(), "acc": 100 * right.float().mean().item(), **figures}  # waits for a GPU to be done
        self.step_seconds.append(time.perf_counter() - started)
        return figures

    def after_train(self):
        self.is_training = False
        self.progress.close()  # before the bar of the test starts
        self.seconds["train"] += time.monotonic() - self.train_started
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                self.load_model(self.output_dir)  # as Dassl does, but only on its way to the test
            self.keep_validation_answers()
        super().after_train()
        if self.cfg.TEST.NO_TEST:
            self.write_run_record()

    # ---- evaluation ----

    def model_inference(self, images):
        """Probabilities (B, K) of test images (1, B, 3, H, W)."""
        return self.answer(images).probability

    def answer(self, images):
        with self.precision.autocast():
            logits = self.scores(images).logits  # (M, B, K)
        answer = self.predict(logits)
        answer.energy = -logits.logsumexp(dim=-1).mean(dim=0)  # (B,)
        return answer

    @torch.no_grad()
    def test(self, split=None):
        """Evaluates on ``val`` or ``test``, text encoded once; outside training this ends the run with its record.

        Returns:
            accuracy in percent.
        """
        split = split or self.cfg.TEST.SPLIT
        loader = {"val": self.val_loader, "test": self.test_loader}.get(split)
        if loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no split {split!r} to test on")
        started = time.monotonic()
        self.set_model_mode("eval")
        self.evaluator.reset()
        log.info("Evaluate on the *%s* set", split)
        kept = []
        for answer, label, paths in self.answers(loader, split):
            self.evaluator.process(answer.probability, label)
            if not self.is_training:
                kept.append((answer.cpu(), label.cpu(), paths))
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        if not self.is_training:
            answers, labels = self.keep(split, kept)
            self.metrics[split] = measure(answers, labels, self.classnames)
            self.seconds["test"] += time.monotonic() - started
            self.write_run_record()
        return list(results.values())[0]

    def answers(self, loader, split):
        """Yields ``Prediction``, labels (B,) and paths of each batch; text is encoded once. Fills ``answer_rates``."""
        self.answer_rates = []
        with self.precision.autocast():
            self.encoded = self.encode_prompts()
        with tqdm(loader, desc=f"{type(self).__name__}, {split}", mininterval=1, dynamic_ncols=True, leave=not self.is_training) as batches:
            for batch in batches:
                images, label = self.parse_batch_test(batch)
                started = time.perf_counter()
                answer = self.answer(images)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                self.answer_rates.append(len(label) / (time.perf_counter() - started))
                yield answer, label, batch["impath"]
        self.encoded = None

    def keep(self, split, batches):
        """Writes what was said of every image of a split; returns it as one ``Prediction``, and the labels (N,)."""
        answers, labels, paths = zip(*batches)
        answers, labels = Prediction.concatenate(answers), torch.cat(labels)
        write_predictions(self.output_dir, split, per_image(answers, labels, [path for batch in paths for path in batch]))
        return answers, labels

    @torch.no_grad()
    def keep_validation_answers(self):
        """Writes ``predictions-val.npz``, which ``predict.py`` takes thresholds from, where val images are not the test's.

        It comes before the test and prints, measures and times nothing: no figure of the run depends on it.
        """
        if self.val_loader is None or self.cfg.TEST.SPLIT == "val" or validates_on_test_images(self.dm.dataset):
            return
        self.set_model_mode("eval")
        self.keep("val", [(answer.cpu(), label.cpu(), paths) for answer, label, paths in self.answers(self.val_loader, "val")])

    def write_run_record(self):
        learnable, total = self.count_parameters()
        prompts_hash = None if self.prompt_learner is None else tensor_hash(self.prompt_learner.state_dict().values())
        write_record(self.output_dir, self.cfg, self.dm.dataset, self.metrics, classnames=self.classnames,
                     parameters={"learnable": learnable, "total": total}, prompts_hash=prompts_hash, backbone_hash=self.backbone_hash,
                     seconds={name: round(value, 2) for name, value in self.seconds.items()},
                     seconds_per_step=round(statistics.median(self.step_seconds), 6) if self.step_seconds else None,
                     test_images_per_second=round(statistics.median(self.answer_rates), 2) if self.metrics else None,
                     device=str(self.device))

    # ---- checkpoints ----

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Writes prompts and all that an exact resume needs; never CLIP's weights, never anything of the class names' shape."""
        state = {
            "state_dict": self.prompt_learner.state_dict(),
            "epoch": epoch + 1,
            "optimizer": self.optim.state_dict(),
            "scheduler": self.sched.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "val_result": None if val_result is None else float(val_result),
            "best_result": self.best_result,
            "training_state": self.training_state(),
            "rng": checkpoint.rng_state(),
            "train_seconds": self.seconds["train"] + time.monotonic() - self.train_started,
            "trainer": type(self).__name__,
            "classnames": self.classnames,
            "backbone_hash": self.backbone_hash,
            "config": checkpoint.config_of_run(self.cfg),
        }
        file_name = model_name or f"model.pth.tar-{epoch + 1}"
        checkpoint.save(state, f"{directory}/{MODEL_NAME}", file_name)
        log.info("Checkpoint saved to %s/%s/%s", directory, MODEL_NAME, file_name)

    def resume_model_if_exist(self, directory):
        """Continues from the newest checkpoint below ``directory``; returns the number of epochs done."""
        folder = f"{directory}/{MODEL_NAME}"
        file_name = checkpoint.newest(folder)
        if file_name is None:
            if self.cfg.RESUME:
                raise UserError(f"--resume {directory}: no checkpoint there (looked for {folder}/{checkpoint.POINTER})")
            return 0
        state = checkpoint.load(f"{folder}/{file_name}")
        self.check_origin(state, folder)
        checkpoint.check_same_run(state, self.cfg, self.classnames, folder)
        self.load_prompts(state, folder)
        self.optim.load_state_dict(state["optimizer"])
        self.sched.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty where the run's device needed no scaler
            self.precision.scaler.load_state_dict(state["scaler"])
        self.best_result = state["best_result"]
        self.restore_training_state(state["training_state"])
        self.seconds["train"] = state["train_seconds"]
        checkpoint.restore_rng_state(state["rng"])
        if os.path.realpath(directory) != os.path.realpath(self.output_dir) and os.path.isfile(f"{folder}/{BEST}"):
            # the best epoch so far may stay the best: it has to be found in this run's folder at the end
            checkpoint.write_atomically(f"{self.output_dir}/{MODEL_NAME}/{BEST}", lambda path: shutil.copyfile(f"{folder}/{BEST}", path))
        log.info("Resuming from %s/%s: %d epochs done", folder, file_name, state["epoch"])
        return state["epoch"]

    def load_model(self, directory, epoch=None):
        """Loads prompts for evaluation: those of ``epoch`` (from 1); without it the best ones under ``best_val``, else the newest.

        Raises:
            UserError: no folder given, no such checkpoint, or it is of another trainer, backbone, prompt shape or class list.
        """
        if self.prompt_learner is None:
            log.info("%s learns nothing, so nothing is loaded", type(self).__name__)
            return
        if not directory:
            raise UserError(f"--eval-only of {type(self).__name__} needs --model-dir, the folder of a finished training")
        folder = f"{directory}/{MODEL_NAME}"
        if epoch is not None:
            file_name = f"model.pth.tar-{epoch}"
        else:
            file_name = BEST if self.cfg.TEST.FINAL_MODEL == "best_val" else checkpoint.newest(folder) or BEST
        state = checkpoint.load(f"{folder}/{file_name}")
        self.check_origin(state, folder)
        self.load_prompts(state, folder)
        log.info("Loading weights to %s from %s/%s (epoch = %d)", MODEL_NAME, folder, file_name, state["epoch"])

    def check_origin(self, state, folder):
        """Refuses prompts that were trained by another method, for another CLIP or, if they are per class, other classes."""
        if state["trainer"] != type(self).__name__:
            raise UserError(f"{folder} was trained by {state['trainer']}, this is {type(self).__name__}")
        if state["backbone_hash"] != self.backbone_hash:
            raise UserError(f"{folder} was trained for the backbone {state['config']['MODEL.BACKBONE.NAME']}, this run has "
                            f"{self.cfg.MODEL.BACKBONE.NAME!r}, which has other weights")
        if getattr(self.prompt_learner, "class_specific", False) and state["classnames"] != self.classnames:
            raise UserError(f"{folder} holds class-specific contexts of {len(state['classnames'])} other classes: they can only be "
                            "tested on the classes they were trained for")

    def load_prompts(self, state, folder):
        try:
            self.prompt_learner.load_state_dict(state["state_dict"])
        except RuntimeError as error:
            raise UserError(f"{folder} holds prompts of another shape, use the config they were trained with: "
                            f"{' '.join(str(error).split())}") from error

"""Going on in the middle of an epoch: the same order, augmentation, schedule, precision and choice of the best epoch, to the bit."""

import multiprocessing
import random

import pytest
import torch
from dassl.data import data_manager
from dassl.engine import TRAINER_REGISTRY
from torch.utils.data import Sampler

from tests.same_run import assert_same_run
from trainers.base import PromptTrainer
from trainers.engine.checkpoint import MODEL_NAME

EVERY_STEP = ("TRAIN.CHECKPOINT_STEPS", "1")
BEST_VAL = ("TEST.FINAL_MODEL", "best_val")
WORKERS = ("DATALOADER.NUM_WORKERS", "2")


class Killed(BaseException):
    pass


class ByPython(Sampler):
    """An order out of Python's generator, where torch's own samplers ask torch's."""

    def __init__(self, data):
        self.length = len(data)

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(random.sample(range(self.length), self.length))


@pytest.fixture(autouse=True)
def another_sampler(monkeypatch):
    known = data_manager.build_sampler
    monkeypatch.setattr(
        data_manager,
        "build_sampler",
        lambda name, cfg, data, **more: (
            ByPython(data) if name == "ByPython" else known(name, cfg, data, **more)
        ),
    )


@pytest.fixture
def killed(run, monkeypatch):
    """Runs that die when they are about to do something: ``killed(function's name, chosen, *arguments of run)`` → whether it died."""

    def start(function_name, chosen, trainer, *options, **more):
        own = TRAINER_REGISTRY.get(trainer)
        function = getattr(own, function_name)

        def dying(self, *arguments, **keywords):
            if chosen(self):
                raise Killed
            return function(self, *arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(own, function_name, dying)
            try:
                run(trainer, *options, **more)
            except Killed:
                return True
            return False

    return start


@pytest.mark.parametrize(
    "trainer, options",
    [
        ("CDC", (*BEST_VAL, "TRAINER.CDC.PREC", "amp")),
        ("PromptSRC", BEST_VAL),
        ("ProGrad", ("OPTIM.NAME", "adamw", "DATALOADER.TRAIN_X.SAMPLER", "ByPython", *WORKERS)),
    ],
)
def test_a_run_that_is_killed_in_each_of_its_steps_ends_as_if_it_were_not(
    run, trained, killed, trainer, options
):
    options = (*options, "OPTIM.MAX_EPOCH", "2")
    whole = trained(trainer, *options)[1]
    steps = []

    def new_step(self):
        steps.append((self.epoch, self.train_loader_x.batches_done))
        return steps.count(steps[-1]) == 1

    while killed("forward_backward", new_step, trainer, *options, *EVERY_STEP, name="killed"):
        torch.manual_seed(12345)  # whatever state the new process is in
    assert sorted(set(steps)) == [(epoch, batch) for epoch in range(2) for batch in range(3)]
    assert len(steps) == 12, "each step but the one that is killed is made once"
    assert_same_run(whole, run(trainer, *options, *EVERY_STEP, name="killed")[2])


def test_a_run_that_is_killed_while_it_validates_or_tests_ends_as_if_it_were_not(
    run, trained, killed
):
    whole = trained("CDC", *BEST_VAL)[1]
    for epoch in (0, 2):
        assert killed(
            "test",
            lambda self, epoch=epoch: self.epoch == epoch,
            "CDC",
            *BEST_VAL,
            *EVERY_STEP,
            name="killed",
        )
    assert killed(
        "write_run_record", lambda self: True, "CDC", *BEST_VAL, *EVERY_STEP, name="killed"
    )
    assert_same_run(whole, run("CDC", *BEST_VAL, *EVERY_STEP, name="killed")[2])


def test_what_is_behind_the_checkpoint_is_made_again(run, trained, killed):
    whole = trained("CoOp", *WORKERS)[1]
    every = (*WORKERS, "TRAIN.CHECKPOINT_STEPS", "2")
    for batch in ((1, 0), (1, 2), (2, 2)):  # after steps 3, 5 and 8 of 9
        assert killed(
            "forward_backward",
            lambda self, batch=batch: (self.epoch, self.batch_idx) == batch,
            "CoOp",
            *every,
            name="killed",
        )
    assert_same_run(whole, run("CoOp", *every, name="killed")[2])


def test_batches_that_are_done_are_not_made_again(run, killed, monkeypatch):
    assert killed(
        "forward_backward",
        lambda self: self.batch_idx == 2,
        "CoOp",
        *EVERY_STEP,
        "OPTIM.MAX_EPOCH",
        "2",
    )
    made, build = [], PromptTrainer.build_data_loader

    def watched(self):
        build(self)
        dataset, get = self.train_loader_x.dataset, type(self.train_loader_x.dataset).__getitem__
        monkeypatch.setattr(
            type(dataset),
            "__getitem__",
            lambda data, index: made.append(data is dataset) or get(data, index),
        )

    monkeypatch.setattr(PromptTrainer, "build_data_loader", watched)
    trainer, _, folder = run("CoOp", *EVERY_STEP, "OPTIM.MAX_EPOCH", "2")
    assert sum(made) == 8 + 24, "one batch of the first epoch, three of the second"
    log = (folder / "log.txt").read_text()
    assert (
        "0 epochs and 2 steps done" in log
        and "epoch [1/2] batch [3/3]" in log.split("Resuming from")[1]
    )


def test_checkpoints_in_the_middle_of_epochs_replace_each_other(run, monkeypatch):
    kept, after_step = [], PromptTrainer.after_step

    def watched(self):
        after_step(self)
        kept.append(sorted(path.name for path in (folder / MODEL_NAME).iterdir()))

    folder = run("CoOp", name="killed", flags=("--no-train",))[2]
    monkeypatch.setattr(PromptTrainer, "after_step", watched)
    run("CoOp", *EVERY_STEP, "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.MAX_EPOCH", "2", name="killed")
    assert kept[:3] == [
        ["checkpoint", "model-step.pth.tar-0-1"],
        ["checkpoint", "model-step.pth.tar-0-1", "model-step.pth.tar-0-2"],
        ["checkpoint", "model-step.pth.tar-0-2", "model-step.pth.tar-0-3"],
    ]
    assert kept[3] == ["checkpoint", "model-step.pth.tar-1-1", "model.pth.tar-1"]


def test_one_worker_makes_what_the_process_itself_would_make_also_where_the_other_begins(
    run, trained, killed
):
    options = (*BEST_VAL, "DATALOADER.TRAIN_X.SAMPLER", "ByPython")
    whole = trained("CoOp", *options)[1]
    one = (*options, "DATALOADER.NUM_WORKERS", "1")
    for first, second in ((options, one), (one, options)):
        name = f"started with {first[-1]}"
        assert killed(
            "forward_backward",
            lambda self: (self.epoch, self.batch_idx) == (1, 2),
            "CoOp",
            *first,
            *EVERY_STEP,
            name=name,
        )
        torch.manual_seed(12345)
        assert_same_run(whole, run("CoOp", *second, name=name)[2])


def test_a_single_worker_lives_as_long_as_the_training(run, monkeypatch):
    seen, after_step = [], PromptTrainer.after_step

    def noted(self):
        seen.append([process.pid for process in multiprocessing.active_children()])
        after_step(self)

    monkeypatch.setattr(PromptTrainer, "after_step", noted)
    run("CoOp", "DATALOADER.NUM_WORKERS", "1", *BEST_VAL)
    assert len(seen) == 9 and all(workers == seen[0] for workers in seen) and len(seen[0]) == 1
    assert multiprocessing.active_children() == []


def test_an_error_in_a_step_leaves_no_process(run, killed):
    assert killed("update_lr", lambda self: True, "CoOp", "DATALOADER.NUM_WORKERS", "1")
    assert multiprocessing.active_children() == []


def test_with_another_number_of_workers_the_epochs_order_is_the_same_and_the_log_says_what_is_not(
    run, killed, monkeypatch
):
    assert killed(
        "forward_backward", lambda self: self.batch_idx == 1, "CoOp", *WORKERS, *EVERY_STEP
    )
    parse = PromptTrainer.parse_batch_train
    whole_order, order = [], []

    def noting(into):
        def noted(self, batch):
            into.extend(batch["index"].tolist())
            return parse(self, batch)

        return noted

    monkeypatch.setattr(PromptTrainer, "parse_batch_train", noting(whole_order))
    run("CoOp", *WORKERS, name="whole")
    monkeypatch.setattr(PromptTrainer, "parse_batch_train", noting(order))
    _, _, folder = run("CoOp", *EVERY_STEP)
    assert order[:16] == whole_order[8:24]
    assert "started with 2 workers and goes on with 0" in (folder / "log.txt").read_text()

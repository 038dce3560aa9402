"""The training loop alone: without Dassl, disk or command."""

import copy
import json
import logging
import math
import re
import sys

import pytest
import torch

from tests.conftest import IN_EPOCHS, make_method, slow_but_for
from tests.pretended_gpu import pretended_gpu
from tests.runs import REPOSITORY, python, refuses
from trainers import METHODS, add_method, list_trainers, method_class, method_node
from trainers.engine.fit import fit
from trainers.engine.progress import Progress, Step

# before what docs/api/trainer.md shows: there is no Dassl
BEFORE = """
import sys
sys.modules["dassl"] = None
"""
# after it
AFTER = """
from trainers import list_trainers
for name in list_trainers():
    method_class(name)
"""


def test_the_log_has_each_value_once_per_epoch_and_the_loss_in_between(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with Progress(str(tmp_path), "CDC", epochs=2, batches=4, done=0, every=1) as progress:
        for epoch in range(2):
            for batch in range(4):
                figures = {"loss": 1.0, "acc": 50.0, "l_de": 0.5}
                progress.take_step(Step(epoch, batch, 4, figures, lr=0.1, seconds=0.01))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 8
    for name, times in {"loss": 8, "acc": 2, "l_de": 2}.items():
        assert sum(f" {name} " in line for line in lines) == times
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all({"loss", "acc", "l_de"} <= {*json.loads(line)} for line in kept)
    assert len(kept) == 8


def test_a_method_is_trained_on_tensors_where_there_is_no_dassl():
    page = (REPOSITORY / "docs/api/trainer.md").read_text()
    (shown,) = re.findall("(?s)```python\n(.*?)```", page)
    done = python("-W", "ignore", "-c", BEFORE + shown + AFTER)
    assert done.returncode == 0, done.stderr
    losses, answers = done.stdout.split("tensor(")
    assert len(losses.split()) == 4
    assert all(math.isfinite(float(loss)) for loss in losses.split())
    assert answers.count("[") == 1 + 8, "eight images"


class Drawn:
    """Two batches an epoch, drawn anew each time."""

    def __len__(self):
        return 2

    def __iter__(self):
        for _ in range(2):
            yield torch.randn(1, 4, 3, 32, 32), torch.randint(2, (4,))


# prompts in both encoders, and in the text alone
FEW = ("CDC", "CoOp")


def start(name, backbone, rate):
    """A method, its optimiser and a schedule, as ``fit`` takes them."""
    torch.manual_seed(1)
    method = make_method(name, backbone, ["cat", "dog"])
    optimizer = torch.optim.SGD(method.learned.parameters(), lr=rate)
    return method, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def test_callbacks_see_each_step_and_each_epoch_in_their_order(vit):
    seen = []
    method, optimizer, schedule = start("CoOp", vit, 0.1)
    fit(
        method,
        Drawn(),
        optimizer,
        schedule,
        2,
        after_step=lambda step: seen.append((step.epoch, step.batch, step.batches, step.lr)),
        after_epoch=seen.append,
        after_epochs=lambda: seen.append("epochs"),
    )
    first, second = [(0, 0, 2, 0.1), (0, 1, 2, 0.1)], [(1, 0, 2, 0.05), (1, 1, 2, 0.05)]
    assert seen == [*first, 0, *second, 1, "epochs"]


# ProLIP is fitted before its epoch, whose step changes nothing
@slow_but_for(FEW, [name for name in IN_EPOCHS if name != "ProLIP"])
def test_what_the_last_step_breaks_is_noticed(vit, name):
    """No loss comes after it; nothing is kept of such an epoch."""
    method, optimizer, schedule = start(name, vit, 1e30)
    batch = next(iter(Drawn()))
    kept = []
    with refuses("after the last step: lower OPTIM.LR"):
        fit(method, [batch], optimizer, schedule, 1, after_epoch=kept.append)
    assert not kept


@slow_but_for(FEW, IN_EPOCHS)
def test_images_may_come_from_another_device(vit, name):
    """Those of the steps, and those that a method looks at before and after them."""
    batches = [*Drawn()]
    with pretended_gpu():
        method, optimizer, schedule = start(name, copy.deepcopy(vit).to("cuda"), 0.01)
        fit(method, batches, optimizer, schedule, 1, validation=batches[:1])
        assert method.answer(batches[0][0].to("cuda"), method.encode()).is_finite


def test_methods_are_listed_by_patterns():
    assert {"CoOp", "KgCoOp"} <= {*list_trainers("*CoOp")} <= {*METHODS}
    assert list_trainers() == [*METHODS]
    assert list_trainers("nothing") == []


def test_a_method_of_another_package_is_known_by_its_name_once_it_is_added(tmp_path, monkeypatch):
    """Its module is imported when it is asked for."""
    (tmp_path / "their_method.py").write_text(
        "from trainers.coop import CoOpMethod, add_coop_config\n\n"
        "class LikeCoOpMethod(CoOpMethod):\n    pass\n\n"
        "def add_likecoop_config(cfg):\n    add_coop_config(cfg)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    add_method("LikeCoOp", "their_method")
    assert "their_method" not in sys.modules
    assert list_trainers()[-1] == "LikeCoOp"
    assert method_class("LikeCoOp").name() == "LikeCoOp"
    assert method_node("LikeCoOp") == method_node("CoOp")


@pytest.mark.parametrize("name", ["CoOp", "COOP"])
def test_a_name_that_is_taken_is_refused(name):
    with refuses(f"^the name '{name}' is taken by CoOp: give the method another one$"):
        add_method(name, "their_method")

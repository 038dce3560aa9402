"""The training loop alone: without Dassl, disk or command."""

import math
import re

import pytest
import torch

from tests.conftest import make_method
from tests.runs import REPOSITORY, python, refuses
from trainers import METHODS, list_trainers, method_class
from trainers.common.errors import UserError
from trainers.engine.fit import fit

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


def test_a_method_is_trained_on_tensors_where_there_is_no_dassl():
    page = (REPOSITORY / "docs/api/trainer.md").read_text()
    (shown,) = re.findall("(?s)```python\n(.*?)```", page)
    done = python("-W", "ignore", "-c", BEFORE + shown + AFTER)
    assert done.returncode == 0, done.stderr
    losses, answers = done.stdout.split("tensor(")
    assert [*map(math.isfinite, map(float, losses.split()))] == [True] * 4
    assert answers.count("[") == 1 + 8, "eight images"


class Drawn:
    """Two batches an epoch, drawn anew each time."""

    def __len__(self):
        return 2

    def __iter__(self):
        for _ in range(2):
            yield torch.randn(1, 4, 3, 32, 32), torch.randint(2, (4,))


def trained(vit, epochs, done=0, state=None, **further):
    torch.manual_seed(1)
    method = make_method("CoOp", vit, ["cat", "dog"])
    optimizer = torch.optim.SGD(method.learner.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    if state is not None:
        parts, rng = state
        for part, kept in zip((method.learner, optimizer, schedule), parts):
            part.load_state_dict(kept)
        torch.random.set_rng_state(rng)
    kept = []

    def keep(epoch):
        parts = [part.state_dict() for part in (method.learner, optimizer, schedule)]
        kept.append((torch.utils._pytree.tree_map(copied, parts), torch.random.get_rng_state()))

    fit(method, Drawn(), optimizer, schedule, epochs, done=done, after_epoch=keep, **further)
    return method.learner.state_dict(), kept


def copied(value):
    return value.clone() if torch.is_tensor(value) else value


def test_a_training_that_goes_on_after_an_epoch_ends_as_if_it_had_not_stopped(vit):
    whole, kept = trained(vit, 3)
    again, rest = trained(vit, 3, done=1, state=kept[0])
    assert (len(kept), len(rest)) == (3, 2)
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_callbacks_see_each_step_and_each_epoch_in_their_order(vit):
    seen = []
    trained(
        vit,
        2,
        after_step=lambda step: seen.append((step.epoch, step.batch, step.batches, step.lr)),
        after_epochs=lambda: seen.append("epochs"),
    )
    assert seen == [(0, 0, 2, 0.1), (0, 1, 2, 0.1), (1, 0, 2, 0.05), (1, 1, 2, 0.05), "epochs"]


def test_a_loss_that_is_no_number_ends_the_training(vit, monkeypatch):
    method = make_method("CoOp", vit, ["cat", "dog"])
    monkeypatch.setattr(method, "loss", lambda scores, labels: (torch.tensor(float("nan")), {}))
    optimizer = torch.optim.SGD(method.learner.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with refuses(r"the loss is nan at step 1 \(epoch 1, batch 1\): lower OPTIM.LR"):
        fit(method, Drawn(), optimizer, schedule, 1)


LEARNING = [name for name in METHODS if method_class(name).learns]


def start(name, vit, rate):
    """A method on a CLIP, its optimiser and a schedule, as ``fit`` takes them."""
    torch.manual_seed(1)
    method = make_method(name, vit, ["cat", "dog"])
    optimizer = torch.optim.SGD(method.learned.parameters(), lr=rate)
    return method, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)


@pytest.mark.parametrize("name", LEARNING)
def test_what_the_last_step_breaks_is_noticed(vit, name):
    """No loss comes after it."""
    method, optimizer, schedule = start(name, vit, 1e30)
    batch = next(iter(Drawn()))
    kept = []
    try:
        fit(method, [batch], optimizer, schedule, 1, after_epoch=kept.append)
    except UserError as error:
        assert "after the last step: lower OPTIM.LR" in str(error)
        assert not kept, "nothing is kept of such an epoch"
    else:  # of what is fitted in one go
        assert method.answer(batch[0], method.encode()).is_finite


class Elsewhere(torch.Tensor):
    """A tensor of another device: whatever computes with it before it is moved fails."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if function is torch.Tensor.to:
                return function(args[0].as_subclass(torch.Tensor), *args[1:])
            made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and function is not torch.Tensor.__getitem__:
            raise RuntimeError(
                f"{function.__name__}: expected all tensors to be on the same device"
            )
        return made


@pytest.mark.parametrize("name", LEARNING)
def test_images_may_come_from_another_device(vit, name):
    """Those of the steps, and those that a method looks at before and after them."""
    method, optimizer, schedule = start(name, vit, 0.01)
    batches = [tuple(part.as_subclass(Elsewhere) for part in batch) for batch in Drawn()]
    fit(method, batches, optimizer, schedule, 1, validation=[batches[0]])
    assert method.answer(batches[0][0].to("cpu"), method.encode()).is_finite


@pytest.mark.parametrize("pattern, names", [("*CoOp", {"CoOp", "KgCoOp"}), ("CDC", {"CDC"})])
def test_methods_are_listed_by_patterns(pattern, names):
    assert names <= {*list_trainers(pattern)} <= {*METHODS}
    assert list_trainers() == [*METHODS] and list_trainers("nothing") == []

"""The training loop alone: without Dassl, disk or command."""

import math
import re

import pytest
import torch

from tests.conftest import make_method
from tests.runs import REPOSITORY, python, refuses
from trainers import METHODS, list_trainers
from trainers.fit import fit

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


@pytest.mark.parametrize("pattern, names", [("*CoOp", {"CoOp", "KgCoOp"}), ("CDC", {"CDC"})])
def test_methods_are_listed_by_patterns(pattern, names):
    assert names <= {*list_trainers(pattern)} <= {*METHODS}
    assert list_trainers() == [*METHODS] and list_trainers("nothing") == []

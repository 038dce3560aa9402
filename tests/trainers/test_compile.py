"""A training whose loss is compiled (``TRAIN.COMPILE``): the same one up to rounding."""

import random
import shutil

import pytest
import torch
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from tests.conftest import IN_EPOCHS, METHOD_OF, make_method, random_clip, slow_but_for
from tests.runs import refuses
from trainers.common.same_run import changes
from trainers.engine.fit import fit
from trainers.prompting.backbone import build_backbone

NAMES = ["cat", "dog", "red fox"]
COMPILED = [name for name in IN_EPOCHS if METHOD_OF[name].compiles]


def trained(name, backbone, is_compiled):
    """Losses of two epochs, what was learned, and draws after them."""
    torch.manual_seed(0)
    random.seed(0)
    method = make_method(name, backbone, NAMES)
    views, _ = method.views(method.settings)
    batches = [(torch.randn(views, 4, 3, 32, 32), torch.arange(4) % 3) for _ in range(2)]
    optimizer = torch.optim.SGD(method.learned.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    losses = []
    fit(
        method,
        batches,
        optimizer,
        schedule,
        2,
        is_compiled=is_compiled,
        after_step=lambda step: losses.append(step.figures["loss"]),
    )
    return losses, method.learned.state_dict(), [random.random(), torch.rand(1)]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++")
def test_a_compiled_training_is_the_same_up_to_rounding(tmp_path, monkeypatch):
    """Of the trainer whose loss is one graph, which takes the least time; docs/log.md has all."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is compiled yet
    backbone = build_backbone(random_clip(vision_layers=2, transformer_layers=1).state_dict())
    compiled = trained("VPT", backbone, True)
    torch.testing.assert_close(compiled, trained("VPT", backbone, False), atol=1e-6, rtol=1e-6)


# random numbers of torch, in images and in none, and of Python
@slow_but_for(("CDC", "CoOp", "CoPrompt"), COMPILED)
def test_what_comes_before_compiling_changes_nothing(vit, monkeypatch, name):
    """The caches are filled, and no draw is another."""
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    compiled = trained(name, vit, True)
    torch.testing.assert_close(compiled, trained(name, vit, False), atol=0, rtol=0)


def test_a_loss_that_takes_gradients_is_refused(vit):
    with refuses("ProGrad's loss takes gradients itself"):
        trained("ProGrad", vit, True)


def test_a_missing_compiler_is_one_sentence(vit, monkeypatch):
    def broken(*_):
        raise InductorError(InvalidCxxCompiler(), None)

    monkeypatch.setattr(torch, "compile", lambda function, options: broken)
    with refuses("No working C\\+\\+ compiler found.*: install a C\\+\\+ compiler such as g\\+\\+"):
        trained("CoOp", vit, True)


def test_a_compiled_run_is_another_run(run, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, options: compiled.append(1) or function)
    trainer, record, _ = run("CoOp", "TRAIN.COMPILE", "True", "OPTIM.MAX_EPOCH", "1")
    assert compiled == [1]
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.TRAIN.COMPILE = False
    assert changes(cfg, record) == ["TRAIN.COMPILE True → False"]

"""On a GPU every method computes what it does on a CPU: on the machine's own where pytest is started
with ``-m gpu`` (scripts/gpu.sh), else on the pretended one.

What must agree is said by three numbers. In fp32 the loss of a step and its gradients differ from the
CPU's by at most a thousandth; in fp16 and amp the logits, in what tells images and classes apart, by
at most 3 % and 20 % from the CPU's in fp32, on a random CLIP.
"""

import copy

import pytest
import torch

from tests.conftest import IN_EPOCHS, LEARNING, make_method, scrambled, slow_but_for
from tests.pretended_gpu import some_gpu
from tests.runs import prompts_of
from tests.trainers.test_every_trainer import spread
from trainers.engine.fit import fit

pytestmark = pytest.mark.gpu
NAMES = ["cat", "dog", "ant"]
FEW = ("CDC", "MaPLe", "CoOp")
FP32 = 1e-3
HALF = {"fp16": 0.03, "amp": 0.2}


@pytest.fixture
def gpu(monkeypatch):
    """Its name; convolutions compute in fp32, too, for which GPUs have a faster format of 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with some_gpu() as name:
        yield name


def both(name, backbone, **settings):
    """A method on the CPU and one on the GPU, which has the settings; both have learned the same."""
    torch.manual_seed(0)
    here = make_method(name, backbone, NAMES)
    there = make_method(name, copy.deepcopy(backbone).to("cuda"), NAMES, **settings)
    images = torch.randn(1, 6, 3, 32, 32)
    labels = torch.arange(6) % len(NAMES)

    def shown(most=None, augmented=False):
        return [(images.to(there.device), labels.to(there.device))]

    here.start(lambda *_, **__: [(images, labels)], None)
    there.start(shown, None)
    scrambled(here.learned)
    there.learned.load_state_dict(here.learned.state_dict())
    return here, there


def loss_and_gradients(method, views, labels):
    """Of a step, as one vector on the CPU."""
    method.train()
    loss, _ = method.loss(method(views.to(method.device)), labels.to(method.device))
    loss.backward()
    parameters = method.learned.parameters()
    gradients = [each.grad.flatten() for each in parameters if each.grad is not None]
    return torch.cat([loss.detach().reshape(1), *gradients]).cpu()


def off_by(value, exact):
    return ((value - exact).norm() / exact.norm()).item()


@slow_but_for(FEW, IN_EPOCHS)
def test_a_step_is_the_cpus(gpu, vit, name):
    here, there = both(name, vit)
    assert there.device.type == "cuda"
    assert all(value.is_cuda for value in there.state_dict().values())
    views = torch.randn(here.views(here.settings)[0], 6, 3, 32, 32)
    labels = torch.arange(6) % len(NAMES)
    exact = loss_and_gradients(here, views, labels)
    assert exact.norm() > 0
    assert off_by(loss_and_gradients(there, views, labels), exact) < FP32


@pytest.mark.parametrize("precision", HALF)
@slow_but_for(FEW, LEARNING)
def test_in_half_precision_it_stays_near_the_cpus_fp32(gpu, vit, name, precision):
    here, there = both(name, vit, PREC=precision)
    images = torch.randn(1, 6, 3, 32, 32)
    with torch.no_grad():
        exact = spread(here.eval()(images).logits)
        logits = there.eval()(images.to("cuda")).logits
    assert logits.dtype == torch.float32
    assert exact.std() > 0.1
    assert off_by(spread(logits.cpu()), exact) < HALF[precision]


@pytest.mark.slow  # on a pretended GPU, whole runs say it, see test_pretended_gpu.py
@pytest.mark.parametrize("precision", ["fp32", *HALF])
@pytest.mark.parametrize("name", IN_EPOCHS)
def test_it_learns_there(gpu, vit, name, precision):
    """With the loss's scaler where the precision needs one."""
    _, there = both(name, vit, PREC=precision)
    views = torch.randn(there.views(there.settings)[0], 6, 3, 32, 32)
    labels = torch.arange(6) % len(NAMES)
    before = copy.deepcopy(there.learned.state_dict())
    optimizer = torch.optim.SGD(there.learned.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    # a scaler halves its factor at each step that overflows, which it leaves out
    fit(there, [(views, labels)] * 10, optimizer, schedule, 1)
    after = there.learned.state_dict()
    assert all(value.is_cuda for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in after)


@slow_but_for(("CoOp",), FEW)
def test_a_run_made_there_answers_alike_on_the_cpu(gpu, run, name):
    trainer, record, folder = run(name)
    assert record["device"] == "cuda:0"
    assert trainer.model.device.type == "cuda"
    _, tested, _ = run(name, "USE_CUDA", "False", name="cpu", flags=prompts_of(folder))
    assert tested["device"] == "cpu"
    assert tested["prompts_hash"] == record["prompts_hash"]
    losses = [each["metrics"]["test"]["nll"] for each in (tested, record)]
    assert losses[0] == pytest.approx(losses[1], rel=FP32)

"""Every trainer on a GPU that is pretended: what meets on it is on it, and the numbers are the CPU's."""

import pytest
import torch

from tests.pretended_gpu import pretended_gpu
from tests.trainers.test_every_trainer import TRAINERS

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")


def test_it_refuses_what_a_gpu_refuses():
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        here = torch.ones(3)
        assert there.device.type == "cuda" and here.device.type == "cpu"
        assert (2 * there[1:]).device == there.device
        assert there.cpu().device.type == "cpu" and here.to(there.device).is_cuda
        assert (there + torch.tensor(1.0)).is_cuda  # a number
        assert there[torch.tensor([0, 2])].is_cuda  # indices
        for mixed in (
            lambda: there + here,
            lambda: here + there.sum(),
            lambda: here[torch.zeros(1, dtype=torch.long, device="cuda")],
            lambda: torch.cat([there, here]),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="can't convert cuda"):
            there.numpy()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_whole_run_is_that_of_the_cpu(run, name):
    _, expected, _ = run(name, name="cpu")
    with pretended_gpu():
        trainer, record, _ = run(name, name="gpu")
        assert trainer.model.device.type == "cuda"
        assert all(value.is_cuda for value in trainer.model.state_dict().values())
    assert record["device"] == "cuda"
    assert record["metrics"] == expected["metrics"]
    assert record["prompts_hash"] == expected["prompts_hash"]

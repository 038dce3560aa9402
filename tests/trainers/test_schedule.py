"""Learning rates against closed forms and against the figures known from the real Dassl."""

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler

from tests.conftest import GOLDEN
from trainers.engine.schedule import build_schedule

RATES = GOLDEN["rates"]


def rates(build, settings, epochs=5, states=()):
    """The rates that some epochs use, after which the states of optimiser and schedule are those
    returned."""
    cfg = get_cfg_default().OPTIM
    cfg.update({"LR": 0.002, "MAX_EPOCH": 5, "LR_SCHEDULER": "cosine", **settings})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.LR)
    schedule = build(optimizer, cfg)
    for part, state in zip((optimizer, schedule), states):
        part.load_state_dict(state)
    used = []
    for _ in range(epochs):
        used.append(optimizer.param_groups[0]["lr"])
        assert schedule.get_last_lr() == used[-1:]
        optimizer.step()
        schedule.step()
    return used, [optimizer.state_dict(), schedule.state_dict()]


SCHEDULES = [
    (build, *case) for build in (build_schedule, build_lr_scheduler) for case in RATES["rates"]
]
SCHEDULES += [(build_lr_scheduler, *case) for case in RATES["of Dassl alone"]]


@pytest.mark.parametrize("build, settings, expected", SCHEDULES)
def test_rates_of_five_epochs(tmp_path, build, settings, expected):
    """Ours and dassl-lite's; a schedule that is restored from plain values goes on as if never
    stopped."""
    expected = pytest.approx([0.002 * share for share in expected], rel=1e-5)
    assert rates(build, settings)[0] == expected
    for stop in (1, 4):
        first, states = rates(build, settings, stop)
        torch.save(states, tmp_path / "states")
        states = torch.load(tmp_path / "states", weights_only=True)
        assert first + rates(build, settings, 5 - stop, states)[0] == expected


@pytest.mark.parametrize(
    "warmup, first, second",
    [
        ("constant", [1e-5, 1e-5, 0], [1e-5, 1e-5, 0]),
        ("linear", [1e-5, 1e-5, 0], [0.001, 0.0065, 0]),
    ],
)
def test_a_warmup_is_that_of_every_group_whatever_its_own_rate(warmup, first, second):
    """As in Dassl, whose warm-up names rates: DePT's head, 6.5 times as fast, warms up at 1e-5 too."""
    cfg = get_cfg_default().OPTIM
    cfg.update(LR=0.002, MAX_EPOCH=5, LR_SCHEDULER="cosine", WARMUP_EPOCH=2, WARMUP_TYPE=warmup)
    bases = [0.002, 0.013, 0.0]
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": base} for base in bases])
    schedule = build_schedule(optimizer, cfg)
    for expected in (first, second, bases):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        optimizer.step()
        schedule.step()

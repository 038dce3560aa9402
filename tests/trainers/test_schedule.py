"""Learning rates against closed forms and against the figures known from the real Dassl."""

import math

import pytest
import torch
from dassl.config import get_cfg_default

from tests.conftest import refuses
from trainers.engine.schedule import build_schedule


def rates(**settings):
    cfg = get_cfg_default().OPTIM
    for key, value in {"LR": 0.002, "MAX_EPOCH": 5, "LR_SCHEDULER": "cosine", **settings}.items():
        cfg[key] = value
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.LR)
    schedule = build_schedule(optimizer, cfg)
    used = []
    for _ in range(cfg.MAX_EPOCH):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


COSINE = [(1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]


@pytest.mark.parametrize(
    "settings, expected",
    [
        # measured with the real Dassl
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"}, [0.005, 1, 0.904508, 0.654508, 0.345492]),
        ({}, COSINE),
        ({"WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear"}, [0.005, 1 / 3, 2 / 3, 1, COSINE[1]]),
        # the decay goes on from the full rate
        (
            {"WARMUP_EPOCH": 2, "WARMUP_TYPE": "constant", "WARMUP_RECOUNT": False},
            [0.005, 0.005, *(COSINE[epoch] / COSINE[2] for epoch in (2, 3, 4))],
        ),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (2,)}, [1, 1, 0.1, 0.1, 0.01]),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,)}, [1] * 5),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": 3}, [1, 1, 1, 0.1, 0.1]),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": (1, 3)}, [1, 0.1, 0.1, 0.01, 0.01]),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": (-1,)}, [1] * 5),
    ],
)
def test_rates_of_five_epochs(settings, expected):
    assert rates(**settings) == pytest.approx([0.002 * share for share in expected], rel=1e-5)


@pytest.mark.parametrize(
    "warmup, expected",
    [("constant", [1e-5, 1e-5]), ("linear", [1e-5, 0.5])],
)
def test_a_warmup_is_that_of_every_group_whatever_its_own_rate(warmup, expected):
    """As in Dassl, whose warm-up names rates: DePT's head, 6.5 times as fast, warms up at 1e-5 too."""
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["LR", 0.002, "MAX_EPOCH", 5, "LR_SCHEDULER", "cosine"])
    cfg.merge_from_list(["WARMUP_EPOCH", 2, "WARMUP_TYPE", warmup])
    bases = [0.002, 0.013, 0.0]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": base} for base in bases]
    optimizer = torch.optim.SGD(groups, lr=cfg.LR)
    schedule = build_schedule(optimizer, cfg)
    for rate in [*expected, 1.0]:
        for group, base in zip(optimizer.param_groups, bases):
            assert group["lr"] == pytest.approx((rate if rate < 1e-4 else rate * base) * (base > 0))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"WARMUP_EPOCH": 5, "WARMUP_TYPE": "constant", "WARMUP_RECOUNT": False},
            "WARMUP_EPOCH 5 leaves none of the 5 epochs",
        ),
        ({"LR_SCHEDULER": "cosin"}, "OPTIM.LR_SCHEDULER is 'cosin'.*did you mean cosine"),
        (
            {"WARMUP_TYPE": "constnt", "WARMUP_EPOCH": 1},
            "OPTIM.WARMUP_TYPE is 'constnt'.*did you mean constant",
        ),
    ],
)
def test_schedules_that_leave_nothing_and_unknown_names_are_refused(settings, message):
    with refuses(message):
        rates(**settings)

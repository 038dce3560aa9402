"""Learning rates against closed forms and against the figures known from the real Dassl."""

import math

import pytest
import torch
from dassl.config import get_cfg_default

from trainers.common.errors import UserError
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


def test_cosine_with_constant_warmup_has_the_rates_of_the_real_dassl():
    assert rates(WARMUP_EPOCH=1, WARMUP_TYPE="constant") == pytest.approx(
        [1e-5, 2e-3, 1.8090e-3, 1.3090e-3, 6.9098e-4], rel=1e-4
    )


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


def test_cosine_without_warmup():
    assert rates() == pytest.approx(
        [0.001 * (1 + math.cos(math.pi * e / 5)) for e in range(5)], rel=1e-12
    )


def test_linear_warmup_rises_from_the_minimum():
    assert rates(WARMUP_EPOCH=3, WARMUP_TYPE="linear")[:4] == pytest.approx(
        [1e-5, 0.002 / 3, 0.004 / 3, 0.002], rel=1e-12
    )


def test_without_recounting_the_decay_goes_on_from_the_full_rate():
    cosine = [(1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)]
    expected = [1e-5, 1e-5] + [0.002 * cosine[e] / cosine[2] for e in (2, 3, 4)]
    assert rates(WARMUP_EPOCH=2, WARMUP_TYPE="constant", WARMUP_RECOUNT=False) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize(
    "steps, expected", [((2,), [1, 1, 0.1, 0.1, 0.01]), ((-1,), [1] * 5), (3, [1, 1, 1, 0.1, 0.1])]
)
def test_single_step(steps, expected):
    assert rates(LR_SCHEDULER="single_step", STEPSIZE=steps) == pytest.approx(
        [0.002 * f for f in expected], rel=1e-12
    )


def test_multi_step():
    assert rates(LR_SCHEDULER="multi_step", STEPSIZE=(1, 3)) == pytest.approx(
        [0.002 * f for f in (1, 0.1, 0.1, 0.01, 0.01)], rel=1e-12
    )


def test_multi_step_without_milestones_keeps_the_rate():
    assert rates(LR_SCHEDULER="multi_step", STEPSIZE=(-1,)) == pytest.approx([0.002] * 5, rel=1e-12)


def test_schedules_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match="WARMUP_EPOCH 5 leaves none of the 5 epochs"):
        rates(WARMUP_EPOCH=5, WARMUP_TYPE="constant", WARMUP_RECOUNT=False)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="OPTIM.LR_SCHEDULER is 'cosin'.*did you mean cosine"):
        rates(LR_SCHEDULER="cosin")
    with pytest.raises(UserError, match="OPTIM.WARMUP_TYPE is 'constnt'.*did you mean constant"):
        rates(WARMUP_TYPE="constnt", WARMUP_EPOCH=1)

"""Learning rates against closed forms and against the figures known from the real Dassl."""

import pytest
import torch
from dassl.config import get_cfg_default

from tests.conftest import GOLDEN
from trainers.engine.schedule import build_schedule


def rates(**settings):
    cfg = get_cfg_default().OPTIM
    cfg.update({"LR": 0.002, "MAX_EPOCH": 5, "LR_SCHEDULER": "cosine", **settings})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.LR)
    schedule = build_schedule(optimizer, cfg)
    used = []
    for _ in range(cfg.MAX_EPOCH):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


@pytest.mark.parametrize("settings, expected", GOLDEN["rates"]["rates"])
def test_rates_of_five_epochs(settings, expected):
    assert rates(**settings) == pytest.approx([0.002 * share for share in expected], rel=1e-5)


@pytest.mark.parametrize("warmup, expected", GOLDEN["cases"]["warm-ups"])
def test_a_warmup_is_that_of_every_group_whatever_its_own_rate(warmup, expected):
    """As in Dassl, whose warm-up names rates: DePT's head, 6.5 times as fast, warms up at 1e-5 too."""
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["LR", 0.002, "MAX_EPOCH", 5, "LR_SCHEDULER", "cosine"])
    cfg.merge_from_list(["WARMUP_EPOCH", 2, "WARMUP_TYPE", warmup])
    bases = [0.002, 0.013, 0.0]
    groups = [{"params": [torch.zeros(1)], "lr": base} for base in bases]
    optimizer = torch.optim.SGD(groups)
    schedule = build_schedule(optimizer, cfg)
    for rate in [*expected, 1.0]:
        for group, base in zip(optimizer.param_groups, bases):
            assert group["lr"] == pytest.approx((rate if rate < 1e-4 else rate * base) * (base > 0))
        optimizer.step()
        schedule.step()

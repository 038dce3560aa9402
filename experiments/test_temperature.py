"""Calibration under a run's temperature and under the most likely one."""

import json

import pytest
import torch

from experiments import temperature as tool
from tests.runs import make_pictures
from trainers.evaluation.uncertainty import TEMPERATURE_BOUNDS, fit_temperature


def test_the_most_likely_temperature_is_not_beaten_by_its_neighbours():
    torch.manual_seed(0)
    logits = 3 * torch.randn(200, 4).double()
    labels = torch.multinomial((logits / 2).softmax(dim=1), 1)[:, 0]
    found = tool.likeliest_temperature(logits.log_softmax(dim=1), labels)

    def loss(temperature):
        return torch.nn.functional.cross_entropy(logits / temperature, labels).item()

    assert found == pytest.approx(2, rel=0.2)
    assert loss(found) < min(loss(0.99 * found), loss(1.01 * found))


def test_where_all_answers_are_right_the_most_likely_temperature_alone_ends_at_its_bound():
    labels = torch.arange(30) % 3
    answers = torch.nn.functional.one_hot(labels).double().log_softmax(dim=1)
    assert tool.likeliest_temperature(answers, labels) == TEMPERATURE_BOUNDS[0]
    assert fit_temperature(answers, labels) > 10 * TEMPERATURE_BOUNDS[0]


def test_each_folder_is_judged_once_for_each_seed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tool, "TRAINERS", ("LinearProbe",))
    monkeypatch.setattr(tool, "SHOTS", (4,))
    make_pictures(tmp_path / "all" / "insects")
    words = f"--root {tmp_path}/all --results {tmp_path}/found.jsonl --seeds 1 2".split()
    tool.main(words)
    lines = (tmp_path / "found.jsonl").read_text().splitlines()
    tool.main([*words, "--show"])
    tool.main(words)
    assert (tmp_path / "found.jsonl").read_text().splitlines() == lines
    assert len(lines) == 2
    assert {json.loads(line)["folder"] for line in lines} == {"insects"}
    shown = capsys.readouterr().out
    assert shown.count("| LinearProbe ") == 3

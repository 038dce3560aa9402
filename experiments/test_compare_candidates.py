"""The tool that compares candidates for one's own pictures."""

import json

from experiments import compare_candidates as tool
from tests.runs import make_pictures


def test_each_folder_is_judged_once_and_the_choice_is_one_of_the_candidates(tmp_path, capsys):
    make_pictures(tmp_path / "all" / "insects")
    words = f"--root {tmp_path}/all --results {tmp_path}/found.jsonl --seeds 1 2".split()
    assert tool.main(words) == 0
    lines = (tmp_path / "found.jsonl").read_text().splitlines()
    assert tool.main([*words, "--show"]) == tool.main(words) == 0
    assert (tmp_path / "found.jsonl").read_text().splitlines() == lines
    shown = capsys.readouterr().out
    found = [json.loads(line) for line in lines]
    assert len(found) == len(tool.SHOTS) * 2 * (len(tool.CANDIDATES) + 1)
    for shots in tool.SHOTS:
        for seed in (1, 2):
            *candidates, chosen = sorted(
                (line for line in found if (line["shots"], line["seed"]) == (shots, seed)),
                key=lambda line: line["trainer"] == tool.CHOICE,
            )
            figures = ("accuracy", "ece", "estimate")
            most = max(line["estimate"] for line in candidates)
            best = next(line for line in candidates if line["estimate"] >= most - tool.TIE)
            assert [chosen[name] for name in figures] == [best[name] for name in figures]
    assert f"| {tool.CHOICE} " in shown

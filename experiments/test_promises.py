"""The simulated promises: broken where copies are not found, kept where they are."""

import re

from experiments import promises


def test_promises_on_bursts_hold_where_copies_are_found_and_break_where_they_are_not(capsys):
    """In random features, GDA: of eight folders; the figures of more are in docs/uncertainty.md."""
    promises.main("--draws 8 --trainers GDA --shots 4".split())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("GDA, 4")]
    broken = {line.split(", ")[3]: line.split(", ", 7)[7] for line in lines}
    assert [*broken] == ["groups known", "groups unknown"]
    first = {
        way: int(re.findall(r"(\d+) of \d+|–", words)[0] or 0) for way, words in broken.items()
    }
    assert first["groups unknown"] > 4, "at 5 %"
    for found in re.findall(r"(\d+) of \d+", broken["groups known"]):
        assert int(found) <= 2
    above = {line.split(", ")[3]: int(line.split(", ")[6]) for line in lines}
    assert above["groups known"] <= 1 and above["groups unknown"] > 4

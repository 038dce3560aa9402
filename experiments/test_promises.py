"""The simulated promises: broken where pictures are counted, kept where groups are."""

from experiments import promises


def test_promises_on_bursts_hold_where_groups_are_counted_and_break_where_pictures_are(capsys):
    """In random features, GDA: of ten folders; the figures of more are in docs/uncertainty.md."""
    promises.main("--draws 10 --trainers GDA --shots 4".split())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("GDA, 4")]
    broken = {line.split(", ")[2]: line.split(", ")[4:] for line in lines}
    assert int(broken["by pictures"][0].split(" of ")[0]) > 5, "at 10 %"
    for words in broken["by groups"]:
        assert words == "–" or int(words.split(" of ")[0]) <= 2

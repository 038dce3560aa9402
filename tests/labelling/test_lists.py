"""``--list`` and ``--version`` of the installed commands."""

import pytest

from labelling.commands import predict, serve, train
from trainers import METHODS, __version__
from trainers.prompting.backbone import BACKBONES
from trainers.settings import RUN


def printed(main, capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [train, predict, serve])
def test_the_version_is_that_of_the_package(command, capsys):
    assert printed(command.main, capsys, "--version") == f"cdc-prompt-learning {__version__}\n"


@pytest.mark.parametrize(
    "kind, names",
    [
        ("trainers", [*METHODS, "BinaryProbe"]),
        ("clips", [*BACKBONES]),
        ("settings", [*RUN, "TRAINER.CDC.N_CTX", "TRAINER.BINARYPROBE.PREC"]),
    ],
)
def test_a_list_has_every_name_once(capsys, kind, names):
    lines = printed(train.main, capsys, "--list", kind).splitlines()
    listed = [line.partition("\t")[0] for line in lines]
    assert {*names} <= {*listed}
    assert len(listed) == len({*listed})

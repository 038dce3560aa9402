"""No file that is read can run code; ruff's rules S1 to S6 look for calls that would."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

import demo_app
import predict
from tests.runs import prompts_of
from train import main
from trainers.common.image_files import read_picture
from trainers.common.readers import read_arrays
from trainers.prompting.backbone import load_backbone


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """What a hostile file would make; a control shows that it can."""
    control = tmp_path / "control"
    pickle.loads(pickle.dumps(Evil(control)))
    assert control.exists()
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists(), "something was run"


def test_a_hostile_checkpoint_is_refused_by_every_command(
    copied, arguments, data_root, tmp_path, mark, error_of
):
    own_run = copied("CoOp")
    sound = {"epoch": 3, "classnames": [], "config": {}, "backbone_hash": ""}
    for path in (own_run / "prompt_learner").glob("model*"):
        torch.save({**sound, "state_dict": {}, "trainer": Evil(mark)}, path)
    for command, words in (
        (main, arguments("CoOp", *prompts_of(own_run), folder=tmp_path / "new")),
        (main, arguments("CoOp", "--resume", own_run, folder=tmp_path / "new")),
        (predict.main, ("--run", own_run, f"{data_root}/dtd/images/woven")),
        (demo_app.main, ("--run", own_run)),
    ):
        assert "model.pth.tar-3 can't be read" in error_of(command, *words)


def write_torchscript(path, evil):
    """A sound archive whose pickles are hostile."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), f"{path}.sound")
    with zipfile.ZipFile(f"{path}.sound") as sound, zipfile.ZipFile(path, "w") as hostile:
        for name in sound.namelist():
            is_pickle = name.endswith("/data.pkl")
            hostile.writestr(name, pickle.dumps(evil) if is_pickle else sound.read(name))


HOSTILE = {  # kind → what writes such a file, what reads it, and why it is refused
    "weights": (
        lambda path, evil: torch.save({"text_projection": evil}, path),
        load_backbone,
        "can't be read as CLIP weights",
    ),
    "TorchScript": (write_torchscript, load_backbone, "it names .*mkdir, which weights don't need"),
    "arrays": (
        lambda path, evil: numpy.savez(path, label=numpy.array([evil], dtype=object)),
        read_arrays,
        "allow_pickle=False",
    ),
    "PostScript, for which Pillow would start Ghostscript": (
        lambda path, evil: Path(path).write_text(
            "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
        ),
        read_picture,
        "it is not an image of a known format",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path, mark, kind):
    write, read, message = HOSTILE[kind]
    path = str(tmp_path / "x.npz")
    write(path, Evil(mark))
    with pytest.raises(ValueError, match=message):  # as is a UserError
        read(path)


def test_a_setting_is_never_evaluated(refusal, mark):
    assert "OPTIM.LR" in refusal("OPTIM.LR", f"__import__('os').mkdir('{mark}')")


def test_the_page_is_served_to_this_machine_only():
    """Other names that lead here, see
    ``app.test_mistakes.test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody``."""
    server = demo_app.make_server(lambda *_: [], 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    finally:
        server.close()

"""No file that is read can run code; ruff's rules S1 to S6 look for calls that would. A setting that would:
messages.yaml."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

from labelling.serve.page import make_server
from trainers.common.image_files import read_picture
from trainers.common.readers import read_arrays
from trainers.engine import checkpoint
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
    "checkpoint": (
        lambda path, evil: torch.save({"state_dict": {}, "trainer": evil}, path),
        checkpoint.load,
        "x.npz can't be read",
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


def test_the_page_is_served_to_this_machine_only():
    """Other names that lead here, see
    ``app.test_mistakes.test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody``."""
    server = make_server(lambda *_: [], 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    finally:
        server.close()

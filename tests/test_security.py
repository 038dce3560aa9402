"""No file that is read can run code; ruff's rules S1 to S6 look for calls that would."""

import io
import os
import pickle
import zipfile

import numpy
import pytest
import torch

import demo_app
import predict
from tests.runs import prompts_of, refuses
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


def test_hostile_clip_weights_are_refused(tmp_path, mark):
    path = tmp_path / "clip.pt"
    torch.save({"text_projection": Evil(mark)}, path)
    with refuses("clip.pt can't be read as CLIP weights"):
        load_backbone(str(path))


def test_hostile_arrays_are_refused(tmp_path, mark):
    numpy.savez(tmp_path / "x.npz", label=numpy.array([Evil(mark)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(tmp_path / "x.npz")


def test_a_torchscript_archive_whose_pickle_is_hostile_is_refused(tmp_path, mark):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(buffer) as sound, zipfile.ZipFile(path, "w") as hostile:
        for name in sound.namelist():
            is_pickle = name.endswith("/data.pkl")
            hostile.writestr(name, pickle.dumps(Evil(mark)) if is_pickle else sound.read(name))
    with refuses("it names .*mkdir, which weights don't need"):
        load_backbone(str(path))


def test_a_setting_is_never_evaluated(refusal, mark):
    assert "OPTIM.LR" in refusal("OPTIM.LR", f"__import__('os').mkdir('{mark}')")


def test_a_picture_that_pillow_would_start_a_program_for_is_none(tmp_path):
    """PostScript, for which it starts Ghostscript."""
    path = tmp_path / "x.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with refuses("it is not an image of a known format"):
        read_picture(str(path))


def test_the_page_is_served_to_this_machine_only():
    """Other names that lead here, see
    ``app.test_mistakes.test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody``."""
    server = demo_app.make_server(lambda *_: [], 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    finally:
        server.close()

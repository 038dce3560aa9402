"""Which file is an image's, by the name that the answers have, and how much of it was cut off."""

from PIL import Image as Picture

from report.pictures import Found, find_images, unseen_share
from results.runs import collect
from tests.results.conftest import write_run
from trainers.data.lists import Image


def test_a_training_image_never_stands_for_one_that_was_held_out(tmp_path, monkeypatch):
    """ant/1.png is in both held-out parts, so that it is not known which of them was answered."""

    class Lists:
        def find(self, root):
            return root

        def list_images(self, folder):
            parts = {"train": (1, 2, 3), "val": (1,), "test": (1, 2)}
            return [
                [Image(f"{folder}/{part}/ant/{number}.png", 0, "ant") for number in numbers]
                for part, numbers in parts.items()
            ]

    monkeypatch.setattr("datasets.every.data_set", lambda name: Lists())
    write_run(tmp_path, "train_all", "CDC", 1)
    assert find_images(*collect(tmp_path), "data") == {
        "ant/2.png": Found("data/test/ant/2.png"),
        "ant/3.png": Found("data/train/ant/3.png"),
    }


def test_what_is_beside_the_square_in_the_middle_is_unseen(tmp_path):
    """Of a box its own sides count, and of a damaged file nothing is known."""
    path = str(tmp_path / "wide.png")
    Picture.new("RGB", (64, 16)).save(path)
    assert unseen_share(Found(path)) == 0.75
    assert unseen_share(Found(f"{path}#xywh=0,0,5,10")) == 0.5
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    assert unseen_share(Found(str(tmp_path / "damaged.png"))) is None
    assert unseen_share(None) is None

"""Which file is an image's, by the name that the answers have."""

from report.pictures import Found, find_images
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

"""One image's description, and the base of data sets."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from dassl.utils import check_isfile


class Datum:
    """An image file with its label, domain and class name; none of them can be set.

    Few-shot caches are pickles of these: module, class name and attribute names are Dassl's, so
    either reads the other's.
    """

    def __init__(
        self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""
    ) -> None:
        assert check_isfile(impath), f'No file found at "{impath}"'
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    impath = property(attrgetter("_impath"))
    label = property(attrgetter("_label"))
    domain = property(attrgetter("_domain"))
    classname = property(attrgetter("_classname"))


class DatasetBase:
    """The lists of a data set; subclasses find their files and call `super().__init__` last.

    Attributes: the four lists, `num_classes`, `lab2cname` (label → class name) and `classnames` in
    order of labels.
    """

    dataset_dir = ""  # the folder's name under DATASET.ROOT
    domains: list[str] = []  # the names of all domains, if there are several

    def __init__(
        self,
        train_x: list[Datum] = None,  # type: ignore[assignment]  # Dassl's default, which is refused below
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] = None,  # type: ignore[assignment]  # Dassl's default; `DataManager` refuses it
    ) -> None:
        self.train_x = train_x
        self.train_u = train_u
        self.val = val
        self.test = test
        self.num_classes = self.get_num_classes(train_x)
        self.lab2cname, self.classnames = self.get_lab2cname(train_x)
        if not self.num_classes == len(self.lab2cname) == len(self.classnames):
            raise ValueError("Labels must be 0, 1, 2, ... without gaps, each with one class name")

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """The highest label plus one."""
        highest: int = max(item.label for item in data_source)
        return highest + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """({label: class name}, class names in order of labels)."""
        pairs = sorted({(item.label, item.classname) for item in data_source})
        return dict(pairs), [classname for _, classname in pairs]

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Sequence[Any]:
        """`num_shots` random items of each class: a list for one source, a list of lists for several.

        With less than 1 shot the sources are returned as they are. A class with too few items gives
        all it has, or, with `repeat`, is sampled with replacement.
        """
        output: Sequence[list[Datum]] = data_sources
        if num_shots >= 1:
            print(f"Creating a {num_shots}-shot dataset")
            output = [[] for _ in data_sources]
            for chosen, source in zip(output, data_sources):
                for items in self.split_dataset_by_label(source).values():
                    if len(items) >= num_shots:
                        chosen += random.sample(items, num_shots)
                    else:
                        chosen += random.choices(items, k=num_shots) if repeat else items
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: list[Datum]) -> dict[int, list[Datum]]:
        """{label: its items}, in order of first appearance."""
        output = defaultdict(list)
        for item in data_source:
            output[item.label].append(item)
        return output

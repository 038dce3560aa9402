"""How many shots of a burst are found to look alike, and how many different pictures are taken for
alike, see ``labelling/folders/look_alikes.py``.

    python -m experiments.bursts

tests/bursts.py draws the bursts. Folders without bursts: OpenMoji's drawings in its 45 classes, some of them twins; crops of two
photographs; handwritten digits; textures of a class's own spectrum and colours.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

from pandas import DataFrame
from PIL import Image
from tabulate import tabulate

from tests.bursts import SIZE, Pictures, drawings, found, groups, textures


def photographs() -> Pictures:
    """Crops of scikit-learn's two, which don't overlap."""
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    made = []
    for name, pixels in zip(samples.filenames, samples.images):
        for top in range(0, pixels.shape[0] - 80, 80):
            for left in range(0, pixels.shape[1] - 80, 80):
                crop = Image.fromarray(pixels[top : top + 80, left : left + 80])
                made.append((crop.resize((SIZE, SIZE)), name))
    return made


def digits() -> Pictures:
    """scikit-learn's."""
    from sklearn.datasets import load_digits

    made = []
    for pixels, label in zip(*load_digits(return_X_y=True)):
        grey = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype("uint8"))
        made.append(
            (grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB"), str(label))
        )
    return made


KINDS = {
    "drawings": drawings,
    "photographs": photographs,
    "digits": digits,
    "textures": textures,
}


def measure(kinds: Sequence[str]) -> Iterator[dict[str, object]]:
    """A row for each kind of pictures."""
    for kind in kinds:
        pictures = KINDS[kind]()
        group = groups([picture for picture, _ in pictures], [name for _, name in pictures])
        sizes = Counter(Counter(group).values())
        together = sum(size * number for size, number in sizes.items() if size > 1)
        yield {
            "pictures": kind,
            "number": len(pictures),
            "found of half bursts, %": found(pictures, 0.5),
            "of bursts, %": found(pictures, 1),
            "without bursts, alike, %": 100 * together / len(pictures),
            "the largest group": max(sizes),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    args = parser.parse_args(arguments)
    table = DataFrame(measure(args.kinds or [*KINDS]))
    print(tabulate(table, headers="keys", floatfmt=".0f", showindex=False))


if __name__ == "__main__":
    main()

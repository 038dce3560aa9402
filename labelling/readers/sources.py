"""Several folders and files as one: the newest correction of a picture holds."""

import os
from collections import defaultdict
from collections.abc import Sequence

from trainers.common.boxes import real_path
from trainers.common.console import counted, first_few
from trainers.common.fingerprints import image_name
from trainers.common.image_files import content_hash, state_of

from .rows import WHOLE, Row, Source, labels_in_words


def in_one(sources: Sequence[Source], places: Sequence[str]) -> Source:
    """Return the pictures of several sources, each once, under the name that it had first.

    A file corrects class folders, wherever it stands, and a file the ones before it; between two
    annotations of Label Studio the newer one holds. A picture is known again by its path, or as the same
    file, byte by byte. Where a source is divided, pictures that no part has are trained on.

    Args:
        sources: of rows with a picture each; places: the folder or the file of each.
    """
    if len(sources) == 1:
        return sources[0]
    rows: dict[str, Row] = {}
    sizes: dict[int, list[str]] = defaultdict(list)  # of files → their real paths
    changed = []
    for source, place in sorted(zip(sources, places), key=lambda pair: os.path.isfile(pair[1])):
        added = {}
        for row in source.rows:
            named = row if row.where == row.image else row._replace(where=f"{place}, {row.where}")
            file = known_as(real_path(row.image), rows, sizes)
            if file not in rows:
                added[row.image if file in added else file] = named  # a link in class folders
                continue
            rows[file], sentence = newer(rows[file], named)
            changed += [sentence] if sentence else []
        rows.update(added)
        for file in added:
            sizes[state_of(file)[0]].append(file)
    notes = sum((source.notes for source in sources), [])
    if changed:
        notes.append(f"Corrected: {counted(len(changed), 'image')}: {first_few(changed)}")
    found = sorted(rows.values(), key=lambda row: row.image)
    if any(row.part != WHOLE for row in found):
        if number := sum(row.part == WHOLE for row in found):
            notes.append(f"Trained on, since no part has them: {counted(number, 'image')}")
        found = [row._replace(part="train") if row.part == WHOLE else row for row in found]
    return Source(
        found,
        sum((source.labels for source in sources), []),
        notes,
        sum((source.warnings for source in sources), []),
        is_chosen=any(source.is_chosen for source in sources),
    )


def known_as(file: str, rows: dict[str, Row], sizes: dict[int, list[str]]) -> str:
    """Return the file of former sources that a file is, by its path or by its bytes; else itself."""
    if file in rows:
        return file
    size, _ = state_of(file)
    alike = sizes.get(size, ()) if size > 0 else ()
    digest = content_hash(file) if alike else ""
    return next((known for known in alike if content_hash(known) == digest), file)


def newer(known: Row, row: Row) -> tuple[Row, str]:
    """Return the row that holds of two sources' rows for a picture, and the correction in words; "" where they agree."""
    group = row.group or known.group
    if {*(known.names or ())} == {*(row.names or ())}:
        return known._replace(group=group, time=row.time or known.time), ""
    corrected, before = row, known
    if row.time and known.time and row.time < known.time:
        corrected, before = known, row
    sentence = (
        f"{image_name(known.image)} is {labels_in_words(corrected)} ({corrected.where}), before {labels_in_words(before)} "
        f"({before.where})"
    )
    return known._replace(
        where=corrected.where, names=corrected.names, group=group, time=corrected.time
    ), sentence

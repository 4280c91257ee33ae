"""Names for files and folders from names that may hold anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 80  # bytes; systems take 255, and a number and a suffix are still to come

_FORBIDDEN = frozenset('/\\<>:"|?*')
# Windows takes these for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text: str) -> str:
    """A name that every common file system takes, as near to the text as can be.

    What is no printable character, or has a meaning in paths, becomes `_`; dots and spaces at
    the ends go (no name is hidden, or `..`); at most `LONGEST` bytes of UTF-8 are kept.
    """
    composed = unicodedata.normalize("NFC", text)
    printable = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in composed)
    kept = printable.strip(" .").encode()[:LONGEST].decode(errors="ignore").strip(" .")
    return f"_{kept}" if not kept or _DEVICES.fullmatch(kept) else kept


def safe_names(texts: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """`safe_name` of each text, all different also where case or Unicode form does not count.

    Args:
      texts: in order; of two alike the first keeps its name, the second gets `-2`.
      taken: names that none may get.
    """
    used = {_key(name) for name in taken}
    numbers: dict[str, int] = {}
    names = []
    for text in texts:
        plain = name = safe_name(text)
        while _key(name) in used:
            numbers[plain] = numbers.get(plain, 1) + 1
            name = f"{plain}-{numbers[plain]}"
        used.add(_key(name))
        names.append(name)
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()

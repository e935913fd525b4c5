"""A slip of the hand in a name is refused, and the right name is told first."""

import random
import string
from collections import Counter
from collections.abc import Callable

from envtune.settings import axolotl_keys, dialects, upstream
from envtune.settings.own import OWN
from tests.unit.builders import problems

RESERVED = set(upstream.axolotl()["reserved"])
NAMES = [f"AXOLOTL_{key.upper()}" for key in axolotl_keys.schema().fields]
NAMES = [name for name in [*NAMES, *OWN] if name not in RESERVED]
# SFT_OUTPUT_DIR, the trainer's, is one letter from SFT_OUTPUTS_DIR.
VALID = {*NAMES, *RESERVED, *(f"SFT_{flag.upper()}" for flag in dialects.flags())}
COUNT = 2000


def insert(name: str, at: int, dice: random.Random) -> str:
    return name[:at] + dice.choice(string.ascii_uppercase) + name[at:]


def delete(name: str, at: int, dice: random.Random) -> str:
    return name[:at] + name[at + 1 :]


def swap(name: str, at: int, dice: random.Random) -> str:
    return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]


def case(name: str, at: int, dice: random.Random) -> str:
    if dice.random() < 0.5:
        return name.lower()
    return name[:at] + name[at].lower() + name[at + 1 :]


def underscore(name: str, at: int, dice: random.Random) -> str:
    places = [i for i, letter in enumerate(name) if letter == "_"]
    return delete(name, dice.choice(places), dice)


SLIPS: tuple[Callable[[str, int, random.Random], str], ...] = (
    insert, delete, swap, case, underscore,
)  # fmt: skip


def test_two_thousand_slips_are_refused_and_the_right_name_is_told(dice: random.Random) -> None:
    tried, told, taken = Counter[str](), Counter[str](), []
    while tried.total() < COUNT:
        slip = SLIPS[tried.total() % len(SLIPS)]
        name = dice.choice(NAMES)
        wrong = slip(name, dice.randrange(len(name)), dice)
        if wrong in VALID:
            continue
        tried[slip.__name__] += 1
        lines = problems({wrong: "1"})
        if len(lines) != 1 or not lines[0].startswith(f"{wrong}: no such setting"):
            taken.append(f"{wrong} for {name}: {lines}")
        told[slip.__name__] += any(f"did you mean {name}?" in line for line in lines)
    print({kind: f"{told[kind] / tried[kind]:.1%}" for kind in tried})
    assert not taken
    assert told.total() >= 0.95 * tried.total()

"""What agents do, in the words of the reference: forward, left, right, stop (Unified-IO 2, arXiv 2312.17172, B.1)."""

from __future__ import annotations

import re

# Names of Habitat, AI2-THOR and ALFRED.
_MOVES = {
    "moveforward": "forward",
    "moveahead": "forward",
    "moveback": "back",
    "turnleft": "left",
    "rotateleft": "left",
    "turnright": "right",
    "rotateright": "right",
    "lookup": "look up",
    "lookdown": "look down",
    "end": "stop",
    "done": "stop",
    "noop": "stop",
}
# Habitat's numbers of discrete actions.
HABITAT_ACTIONS = ("stop", "forward", "left", "right", "look up", "look down")


def action_words(name: str, thing: str = "", place: str = "") -> str:
    """An action in words.

    Args:
        name: as simulators call it: ``MOVE_FORWARD``, ``RotateLeft_90``, ``PickupObject``.
        thing, place: what it is done to, and where, by the names of their kinds (``AlarmClock``) or their ids, which
            go on with ``|``.
    """
    bare = re.sub(r"_\d+$", "", name.strip())
    move = _MOVES.get(re.sub(r"[\W_]", "", bare).lower())
    if move is not None:
        return move
    words = [word for word in _words(bare) if word != "object"]
    words = [part for word in words for part in (("pick", "up") if word == "pickup" else (word,))]
    words += _words(thing.split("|", maxsplit=1)[0])
    if place:
        words += ["in", *_words(place.split("|", maxsplit=1)[0])]
    return " ".join(words)


def _words(name: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", " ", name).lower().split()

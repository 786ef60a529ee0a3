"""``X-Robots-Tag``: whether a response opts out of being used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Directives that take a value behind a colon; any other word before a colon is the name of a robot.
_VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


def opts_out(headers: Iterable[str], token: str, directives: Sequence[str]) -> bool:
    """Whether one of the header's values holds one of `directives` for everyone or for the robot `token`.

    A robot's name holds for the directives behind it up to the next name, as Google documents the header. (img2dataset
    takes the first word before a colon for a name, and so overlooks ``max-snippet:0, noai``.)
    """
    unwanted = {directive.strip().lower() for directive in directives}
    for value in headers:
        robot = None
        for item in value.lower().split(","):
            word = item.strip()
            name, colon, rest = word.partition(":")
            if colon and name.strip() not in _VALUED:
                robot, word = name.strip(), rest.strip()
            if word in unwanted and robot in (None, "*", token.lower()):
                return True
    return False

"""``X-Robots-Tag`` and the TDM Reservation Protocol: whether a response opts out of being used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Directives that take a value behind a colon; any other word before a colon is the name of a robot.
_VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


# Stands among directives for rights that are reserved.
TDM_RESERVATION = "tdm-reservation"


def headers_said(robots: Iterable[str], reservations: Iterable[str]) -> tuple[str, ...]:
    """What the headers of a response say, as `opts_out` takes it.

    Args:
        robots: values of ``X-Robots-Tag``.
        reservations: values of ``tdm-reservation``; 1 reserves the rights.
    """
    return (*robots, *(TDM_RESERVATION for value in reservations if value.strip() == "1"))


def opts_out(said: Iterable[str], token: str, directives: Sequence[str]) -> bool:
    """Whether one of the values holds one of `directives` for everyone or for the robot `token`.

    A robot's name holds for the directives behind it up to the next name, as Google documents the header. (img2dataset
    takes the first word before a colon for a name, and so overlooks ``max-snippet:0, noai``.)
    """
    unwanted = {directive.strip().lower() for directive in directives}
    for value in said:
        robot = None
        for item in value.lower().split(","):
            word = item.strip()
            name, colon, rest = word.partition(":")
            if colon and name.strip() not in _VALUED:
                robot, word = name.strip(), rest.strip()
            if word in unwanted and robot in (None, "*", token.lower()):
                return True
    return False

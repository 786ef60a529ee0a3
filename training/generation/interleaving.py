"""What may come next in a sequence of text and pictures: text until `<break>`, one picture, text again, until the end.

It is the order of `omnimill.training.rendering.sequence_recipe`: `<break>` wherever text and pictures, or two pictures,
meet, and a picture has exactly as many codes as its canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omnimill.errors import OmnimillError
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TokenLayout
from omnimill.training.objectives.spans import BREAK

# opening: text or a picture begins. writing: within text. turning: a picture must begin. drawing: within a picture.
# drawn: behind a picture. over: nothing more.
State = Literal["opening", "writing", "turning", "drawing", "drawn", "over"]
# text: no picture comes. image: one picture and nothing else. interleaved: what the model wants.
Wanted = Literal["text", "image", "interleaved"]


class Order:
    """The order of ids of a vocabulary.

    Raises:
        OmnimillError: its codes of pictures are no ids of the text table, or it has no `<break>`.
    """

    def __init__(self, layout: TokenLayout) -> None:
        if "image" not in layout.vocabulary.joint or BREAK not in layout.vocabulary.specials:
            raise OmnimillError(
                f"tokenizers {layout.tokenizers!r}: sequences need codes as ids of the text and {BREAK}"
            )
        vocabulary = Vocabulary.of(layout)
        text = vocabulary.text
        self.end, self.turn = text.EOS, text.special(BREAK)
        self.codes = layout.image.target_grid**2
        self.code_ids = [vocabulary.code("image", code) for code in range(layout.image.codes)]
        self.code_of = {token: code for code, token in enumerate(self.code_ids)}
        words = torch.zeros(text.rows, dtype=torch.bool)
        for block in text.table.ranges:
            if block.name in ("piece", "location"):
                words[block.start : block.stop] = True
        drawn = torch.zeros_like(words)
        drawn[self.code_ids] = True
        self._kinds = {
            "words": words,
            "codes": drawn,
            "turn": self._only(words, self.turn),
            "end": self._only(words, 1),
        }

    def allowed(self, kinds: frozenset[str]) -> Tensor:
        """Which ids may come, bool [rows], of the kinds ``words``, ``codes``, ``turn``, ``end``."""
        return torch.stack([self._kinds[kind] for kind in sorted(kinds)]).any(0)

    @staticmethod
    def _only(like: Tensor, token: int) -> Tensor:
        one = torch.zeros_like(like)
        one[token] = True
        return one


@dataclass
class Progress:
    """Where one sequence stands.

    room: ids that it may still have. left: codes of the picture that is being drawn.
    """

    order: Order
    wanted: Wanted
    room: int
    state: State
    left: int = 0

    def kinds(self) -> frozenset[str]:
        """What may come next."""
        picture = self.wanted != "text" and self.room > self.order.codes
        if self.wanted == "image":
            return frozenset({"codes"} if self.state in ("opening", "turning", "drawing") else {"turn"})
        if self.state in ("turning", "drawing"):
            return frozenset({"codes"})
        if self.state == "opening":
            return frozenset({"words", "codes"} if picture else {"words"})
        if self.state == "drawn":
            # Of a picture that is to be described something is to be said.
            return frozenset({"turn"} if self.wanted == "text" else {"turn", "end"} if self.room > 1 else {"end"})
        return frozenset({"words", "end", "turn"} if picture and self.room > self.order.codes + 1 else {"words", "end"})

    @property
    def draws(self) -> bool:
        """Whether what comes next is certain to be a code."""
        return self.kinds() == {"codes"}

    def take(self, token: int) -> None:
        """The id that came."""
        self.room -= 1
        if token == self.order.end:
            self.state = "over"
        elif token == self.order.turn:
            self.state = "opening" if self.state == "drawn" else "turning"
        elif token in self.order.code_of:
            self.left = (self.left or self.order.codes) - 1
            self.state = "drawing" if self.left else "over" if self.wanted == "image" else "drawn"
        else:
            self.state = "writing"
        if not self.room:
            self.state = "over"

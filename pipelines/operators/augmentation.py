"""Base of the operators that add items to examples and drop none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from omnimill.pipelines.base import Operator
from omnimill.schema import Example


class Augmentation(Operator):
    """Adds to each example by itself; what is drawn for it depends on its id alone."""

    per_example: ClassVar[bool] = True

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        for example in examples:
            self.augment(example)
        return [None] * len(examples)

    def augment(self, example: Example) -> None:
        """Add to an example, in the columns named in `writes`."""
        raise NotImplementedError

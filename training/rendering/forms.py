"""Which form examples take: pairs for an encoder-decoder, sequences for a decoder-only backbone."""

from __future__ import annotations

from omnimill.mixtures.config import Mixture
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.planning.bulk_lengths import BulkLengths
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.sequence_lengths import BulkSequenceLengths
from omnimill.training.rendering.pairs import Renderer
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.recipe import Recipe, Recipes
from omnimill.training.rendering.sequence_recipe import SequenceRecipe, SequenceRecipes
from omnimill.training.rendering.sequences import SequenceRenderer
from omnimill.training.rendering.settings import RenderSettings

AnyRenderer = Renderer | SequenceRenderer
AnyRecipe = Recipe | SequenceRecipe
AnyRecipes = Recipes | SequenceRecipes
AnyLengths = BulkLengths | BulkSequenceLengths


def make_recipes(
    mixture: Mixture, layout: TokenLayout, text: PromptText, settings: RenderSettings, budgets: Budgets
) -> AnyRecipes:
    """Recipes of the form that the settings name; arguments and errors as of `Recipes`."""
    kind = SequenceRecipes if settings.form == "sequence" else Recipes
    return kind(mixture, layout, text, settings, budgets)


def make_renderer(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings, budgets: Budgets
) -> AnyRenderer:
    """The renderer of the form that the settings name; arguments and errors as of `Renderer`."""
    kind = SequenceRenderer if settings.form == "sequence" else Renderer
    return kind(mixture, layout, text, settings, budgets)


def bulk_lengths(recipes: AnyRecipes) -> AnyLengths:
    """Lengths of many examples of the recipes."""
    return BulkSequenceLengths(recipes) if isinstance(recipes, SequenceRecipes) else BulkLengths(recipes)

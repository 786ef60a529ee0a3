"""The vocabulary of a configuration or of a trained set, for people to look at."""

from __future__ import annotations

from omnimill.config import load_config
from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.store import stored_set
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary, Vocabulary


def vocabulary_of(name: str, root: str) -> Vocabulary:
    """The vocabulary that a YAML file asks for, or that a set has.

    Args:
        name: a path that ends in .yaml or .yml, or the name of a set.
        root: where sets are.

    Raises:
        ConfigError: the file is not a tokenizer configuration.
        OmnimillError: there is no such set, or the configured text model cannot be read.
    """
    if not name.endswith((".yaml", ".yml")):
        return Vocabulary.of(stored_set(root, name).layout(name))
    config = load_config(name, TokenizerConfig)
    layout = config.layout
    text = TextVocabulary(config.text.pieces, layout.vocabulary, layout.image.codes, layout.audio.codes)
    if config.text.model is not None:
        if not storage.exists(config.text.model):
            raise OmnimillError(f"{name}: text.model: {config.text.model} does not exist")
        text = TextTokenizer.of(storage.read_bytes(config.text.model), config.text.model, text).vocabulary
    return Vocabulary(text)

"""Whether the class names fit into a model's text, known before the model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mint_stream.clip.class_list import ClassList
from mint_stream.clip.model_files import read_config
from mint_stream.config import ConfigError, ModelConfig

_DEFAULT_LENGTH = 77  # of open_clip's text towers, where a configuration does not say


def check_name_length(classes: ClassList, config: ModelConfig, templates: Sequence[str]) -> None:
    """Refuse a class whose sentence is longer than the model's text; says which, and its length.

    templates: the preset's own; those of `classes` without. The model is known to exist. The
    tokenizer is asked only about names so long that they might not fit.
    """
    tokenizer: Any = None
    limit = _text_length(config)
    for template in templates or classes.templates:
        before, _, after = template.partition("{}")
        for phrase in (phrase for phrases in classes.phrases for phrase in phrases):
            if len(f"{before}{phrase}{after}".encode()) + 2 <= limit:  # no more tokens than bytes
                continue
            if tokenizer is None:
                from open_clip.tokenizer import SimpleTokenizer

                tokenizer = SimpleTokenizer()
            name = phrase.replace("_", " ") + after
            needed = len(tokenizer.encode(before.strip())) + len(tokenizer.encode(name)) + 2
            if needed > limit:
                raise ConfigError(
                    f"class name {phrase!r} needs {needed} text positions with the template "
                    f"{template!r}; model {config.model} has {limit}: shorten the name"
                )


def _text_length(config: ModelConfig) -> int:
    """Text positions of the model; endless where it has a tokenizer of its own."""
    if Path(config.model).is_dir():
        content, _ = read_config(Path(config.model))
    else:
        import open_clip

        content = open_clip.get_model_config(config.model) or {}
    text = content.get("text_cfg", {})
    own = {"hf_tokenizer_name", "hf_model_name"} & text.keys()
    return 2**31 if own else int(text.get("context_length", _DEFAULT_LENGTH))

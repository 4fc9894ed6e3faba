"""Class names that a model cannot tell apart, or has never read: warned about with the names."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from mint_stream.clip.model import LoadedClip

log = logging.getLogger(__name__)

LEAST_LOG_ODDS = 2.0
"""Two classes are told apart if some image could give one of them more than that over the other:
88 % against 12 %. Of two words that the bundled CLIP does not know no image gives more than 1.8, of
two that mean the same (car, automobile) 2.4, of two of its ten classes 15; the small CLIP that was
trained on CIFAR-10 gives cat over dog 7."""

_SHOWN = 5
_ROWS = 1024


def warn_about_classes(
    clip: LoadedClip, phrases: Sequence[Sequence[str]], text_CE: Tensor, scale: float
) -> None:
    """Say which classes of a list this model cannot label.

    Args:
        phrases: for each class its name and synonyms, the name first.
        text_CE: unit text features of the classes.
        scale: what cosines are multiplied by.
    """
    names = [group[0] for group in phrases]
    if groups := alike(text_CE, scale):
        shown = "; ".join(_listed([names[i] for i in group]) for group in groups[:_SHOWN])
        more = f"; and {len(groups) - _SHOWN} more groups" if len(groups) > _SHOWN else ""
        log.warning(
            "the model can hardly tell these classes apart, whatever the image: %s%s. Their "
            "labels and confidences mean little: use other names, or another --model",
            shown,
            more,
        )
    if strange := unread(clip, phrases):
        log.warning(
            "the model has never read the words of %s: labels and confidences of these classes "
            "mean nothing; use words that it knows, or another --model",
            _listed([names[i] for i in strange]),
        )


def alike(text_CE: Tensor, scale: float) -> list[list[int]]:
    """Groups of classes that no image tells apart: each is that close to one before it."""
    closest = 1 - (LEAST_LOG_ODDS / scale) ** 2 / 2
    groups: dict[int, list[int]] = {}
    group_of: list[int] = []
    for start in range(0, len(text_CE), _ROWS):
        cosine_RC = text_CE[start : start + _ROWS] @ text_CE.T
        first_R = (cosine_RC > closest).int().argmax(-1)
        for index, first in enumerate(first_R.tolist(), start):
            group_of.append(group_of[first] if first < index else index)
            groups.setdefault(group_of[-1], []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def unread(clip: LoadedClip, phrases: Sequence[Sequence[str]]) -> list[int]:
    """Classes with a token whose embedding is zero: of small models, that keep what they read."""
    table_TW = clip.model.token_embedding.weight
    known_T = table_TW.ne(0).any(-1).cpu()
    if bool(known_T.all()):
        return []
    found = []
    for index, group in enumerate(phrases):
        for row in clip.tokenizer([name.replace("_", " ") for name in group]):
            # [SOS] ... [EOS] and padding; [EOS] is the largest id.
            if not bool(known_T[row[: int(row.argmax())]].all()):
                found.append(index)
                break
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""When adapting is safe: the rule, in the words of an operator.

A domain's mean is taken for the domain's doing and subtracted. That helps while the frames show a
mixture of classes, and harms when they show one thing for a long time, because then the mean is the
thing. So, for each domain and after each unit:

1. `learning`: fewer than 16 frames of this domain, or 128 of the stream. Frozen stands.
2. `correlated`: frames that come together vary less than 85 % of what all frames of the domain do,
   here or over the whole stream: it comes in runs. Frozen stands.
3. `adapting`: the features have collapsed to a third of the widest usual spread or less, as in the
   dark: the frozen model hardly tells classes apart any more.
4. `uniform`: the frozen answers are less diverse than 0.4 of the class list (0.7 as long as no
   domain was ever seen to be diverse). Frozen stands.
5. `narrow`: frames vary less than 65 % of what was usual in this very domain while it was diverse:
   something fills the view. Frozen stands.
6. `adapting`: otherwise.

Nothing is undone when the rule says stop: the sums fade by halves and the next diverse minutes
replace them.
"""

from __future__ import annotations

from dataclasses import dataclass

ADAPTING = "adapting"
LEARNING = "learning"
REFUSALS = ("correlated", "uniform", "narrow")
"""Verdicts that speak against a domain; `LEARNING` says only that too little is known."""
NO_GUARD = "off"
"""In place of a verdict, where no guard watches."""

TRUSTED = frozenset({ADAPTING, NO_GUARD, "held", "smoothed", "pooled", "shifted"})
"""Verdicts with which the adapted answer stands; the last four are those of `cameras`."""

FRAMES_FOR_DOMAIN = 16.0
FRAMES_FOR_STREAM = 128.0
FRAMES_FOR_USUAL = 32.0
"""Frames before a domain's spread counts as usual."""
UNCORRELATED = 0.85
COLLAPSED = 0.34
DIVERSE = 0.4
DIVERSE_AT_FIRST = 0.7
NARROW = 0.65


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one domain. Spreads are mean squared distances where classes differ."""

    frames: float
    """Of this domain lately."""
    stream_frames: float
    """Of all domains, that came together with others."""
    spread: float
    """About the domain's mean."""
    within: float
    """About the mean of the frames that came together."""
    mixed: float
    """`within` over `spread`, over the whole stream."""
    diversity: float
    """Effective number of classes among the frozen answers, over the length of the class list."""
    usual_spread: float
    """Of this domain while it was diverse; 0 if it never was."""
    widest_spread: float
    """The largest usual spread of any domain; 0 if none was ever diverse."""


def verdict(evidence: Evidence) -> str:
    """`ADAPTING`, or why not: learning, correlated, uniform, narrow."""
    e = evidence
    if e.frames < FRAMES_FOR_DOMAIN or e.stream_frames < FRAMES_FOR_STREAM:
        return LEARNING
    if e.within < UNCORRELATED * e.spread or e.mixed < UNCORRELATED:
        return "correlated"
    if e.spread < COLLAPSED * e.widest_spread:
        return ADAPTING
    if e.diversity < (DIVERSE if e.widest_spread else DIVERSE_AT_FIRST):
        return "uniform"
    if e.within < NARROW * e.usual_spread:
        return "narrow"
    return ADAPTING

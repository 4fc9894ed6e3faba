"""The bearer token that clients send: the environment's, compared in constant time."""

from __future__ import annotations

import hashlib
import os
import secrets

from mint_stream.serving.http.problems import Problem

TOKEN_VARIABLE = "MINT_STREAM_TOKEN"
"""Environment variable of proxies and replicas: the bearer token that /v1 then asks for."""


class Token:
    """The environment's token, as it was when this was made; without one everybody is let in."""

    def __init__(self) -> None:
        expected = os.environ.get(TOKEN_VARIABLE, "")
        self._asked_for = bool(expected)
        self._wanted = hashlib.sha256(expected.encode()).digest()

    def admits(self, given: str) -> bool:
        """Whether a request with this token may go on."""
        # Hashes: the comparison takes the same time for any token of any length.
        same = secrets.compare_digest(hashlib.sha256(given.encode()).digest(), self._wanted)
        return same or not self._asked_for

    @staticmethod
    def refusal(given: str) -> Problem:
        """What a request that is not admitted is answered."""
        return Problem(
            "unauthorized",
            "the token is wrong" if given else "no token was sent",
            "Send the header `Authorization: Bearer <token>`.",
        )

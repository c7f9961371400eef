"""Tokens that the gateway signs itself, one per call (JSON Web Token, RFC 7519)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from gateway.catalog.authentication import SignedTokens

CLOCK_SKEW = 5
"""Seconds that a token is good before now: not every server's clock agrees with ours."""


class Signer:
    """Signs for one publisher. Raises ValueError for a key that does not fit its algorithm."""

    def __init__(self, plan: SignedTokens) -> None:
        self._plan = plan
        self._key = _key(plan)
        self._header = {"alg": plan.algorithm, "typ": "JWT"}
        if plan.key_id is not None:
            self._header["kid"] = plan.key_id

    def sign(self, facts: Mapping[str, str]) -> str:
        """Return a token for one call. `facts` fill the template: request_id, slug."""
        plan, now = self._plan, int(time.time())
        facts = {**facts, "access_key": plan.access_key or ""}
        claims: dict[str, Any] = {} if plan.access_key is None else {"iss": plan.access_key}
        claims |= {name: _filled(value, facts) for name, value in plan.claims.items()}
        claims |= {"iat": now, "nbf": now - CLOCK_SKEW, "exp": now + plan.seconds}
        return jwt.encode(self._header, claims, self._key, algorithms=[plan.algorithm])


def _key(plan: SignedTokens) -> Key:
    with warnings.catch_warnings():
        # Short secrets are the upstream's choice; publishers cannot change them.
        warnings.simplefilter("ignore", SecurityWarning)
        if plan.algorithm.startswith("HS"):
            return OctKey.import_key(plan.key)
        if plan.algorithm.startswith("RS"):
            return RSAKey.import_key(plan.key)
        return ECKey.import_key(plan.key)


def _filled(value: Any, facts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, fact in facts.items():
            value = value.replace("{" + name + "}", fact)
        return value
    if isinstance(value, dict):
        return {name: _filled(item, facts) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_filled(item, facts) for item in cast("list[Any]", value)]
    return value

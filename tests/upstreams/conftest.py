"""A certificate for the TLS tests, made once."""

from __future__ import annotations

import pytest

from tests.support.certificates import self_signed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return the path of a self-signed certificate and key for upstream.test."""
    return self_signed(tmp_path_factory.mktemp("tls") / "upstream.pem", "upstream.test")

"""TLS to a publisher's database, spoken by a real PostgreSQL with a certificate of its own authority."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.catalog.sales import DatabaseConfig
from gateway.errors import InvalidRequest
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.address import Address, read_address
from gateway.upstreams.postgres.errors import DatabaseUnreachable
from gateway.upstreams.postgres.onboarding import DatabaseInspector
from gateway.upstreams.postgres.pool import DatabasePool
from tests.support.certificates import self_signed
from tests.support.elder import AT_HAND, NAME, Elder
from tests.support.market import Market
from tests.upstreams.postgres.conftest import LOOPBACK

pytestmark = pytest.mark.skipif(not AT_HAND, reason="there is no PostgreSQL that speaks TLS here")
ENCRYPTED = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


async def names(host: str, _port: int) -> list[str]:
    """Resolve the names of these tests, as a publisher's name server would."""
    return ["127.0.0.1"] if host in (NAME, "db.other.test") else []


def guard() -> EgressGuard:
    return EgressGuard([LOOPBACK], resolver=names)


def at(elder_market: Market, host: str, **more: str | None) -> Address:
    return replace(elder_market.address, host=host, tls="verify-full", **more)  # type: ignore[arg-type]


async def asked(address: Address) -> tuple[bool, str]:
    """Return whether a connection is encrypted, and with what. Raises DatabaseUnreachable."""
    pool = DatabasePool(address, guard(), size=1)
    try:
        async with pool.lease() as session:
            return tuple(await session.fetchrow(ENCRYPTED))  # type: ignore[return-value]
    finally:
        pool.close()


async def test_its_own_authority_and_its_name_are_verified(elder: Elder, elder_market: Market) -> None:
    encrypted, version = await asked(at(elder_market, NAME, ca=elder.ca))
    assert encrypted
    assert version in ("TLSv1.2", "TLSv1.3")


async def test_another_name_is_refused_with_the_reason(elder: Elder, elder_market: Market) -> None:
    with pytest.raises(DatabaseUnreachable, match=r"certificate is for another name than db\.other\.test"):
        await asked(at(elder_market, "db.other.test", ca=elder.ca))
    with pytest.raises(DatabaseUnreachable, match=r"certificate is for another name than 127\.0\.0\.1"):
        await asked(at(elder_market, "127.0.0.1", ca=elder.ca))


async def test_an_unknown_authority_is_refused_with_the_reason(elder_market: Market, tmp_path: Path) -> None:
    other = self_signed(tmp_path / "other.pem", NAME).read_text()
    for ca in (None, other[other.index("-----BEGIN CERTIFICATE") :]):
        with pytest.raises(DatabaseUnreachable, match="certificate is not trusted: put its authority's PEM"):
            await asked(at(elder_market, NAME, ca=ca))


async def test_require_encrypts_and_trusts_anything(elder_market: Market) -> None:
    assert (await asked(replace(elder_market.address, tls="require")))[0]
    assert not (await asked(elder_market.address))[0], "disable is what it says"


async def test_a_server_without_tls_is_refused_with_the_reason(publishers_database: Market) -> None:
    with pytest.raises(DatabaseUnreachable, match="does not speak TLS"):
        await asked(replace(publishers_database.address, tls="require"))


async def test_a_publisher_is_told_what_is_wrong(elder_market: Market) -> None:
    text = elder_market.connection_string.replace("127.0.0.1", NAME)
    with pytest.raises(InvalidRequest, match="certificate is not trusted"):
        await DatabaseInspector(guard())(DatabaseConfig(connection_string=text))
    with pytest.raises(InvalidRequest, match="ca: is no PEM certificate"):
        await DatabaseInspector(guard())(DatabaseConfig(connection_string=text, ca="-----BEGIN NOTHING-----"))
    assert read_address(text).tls == "verify-full", "what is asked for unless said otherwise"

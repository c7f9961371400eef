"""`tollway publisher sandbox-sql`: the role through which a database may be sold, as SQL for its owner."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.support.dev import tollway
from tests.support.market import NAME, Market
from tests.support.services import Services


def test_it_prints_a_role_that_reads_what_is_named(services: Services, market: Market) -> None:
    url = urlsplit(services.database_url)._replace(path=f"/{NAME}").geturl()
    named = ("--table", "demo.sectors", "--table", "companies", "--column", "companies.name")
    shown = tollway("publisher", "sandbox-sql", url, "--tls", "disable", *named)
    assert shown.returncode == 0, shown.stderr
    assert 'CREATE ROLE "tollway_reader" LOGIN NOINHERIT NOSUPERUSER' in shown.stdout
    assert 'GRANT SELECT ON "demo"."sectors" TO "tollway_reader";' in shown.stdout
    assert 'GRANT SELECT ("name") ON "demo"."companies" TO "tollway_reader";' in shown.stdout
    assert "filings" not in shown.stdout


def test_it_says_why_not_and_no_password(market: Market) -> None:
    for url, reason in (
        ("postgresql://u:SECRET@127.0.0.1:1/x", "cannot be reached"),
        ("mysql://u:SECRET@127.0.0.1/x", "must look like"),
        (market.connection_string.replace("reader-secret", "SECRET"), "refuses the login"),
    ):
        refused = tollway("publisher", "sandbox-sql", url, "--tls", "disable")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert reason in refused.stderr
        assert "SECRET" not in refused.stderr

"""What the queries of these tests find on sale."""

from __future__ import annotations

from pricing.sql.catalogue import OnSale, Relation

TABLES = {
    "sectors": "sector_id name parent_id",
    "companies": "company_id ticker name country sector_id founded employees tags profile",
    "filings": "filing_id company_id form filed_at period revenue net_income body meta",
    "prices": "company_id day open close volume",
    "latest_price": "company_id day close",
    "monthly_volume": "company_id month volume",
}
ON_SALE = OnSale.of(
    [
        *(Relation("demo", name, tuple(columns.split())) for name, columns in TABLES.items()),
        Relation("demo", "Ratings 2024", ("Company ID", "Score", "select")),
        Relation("demo", "partial", ("a", "b"), whole=False),
    ]
)

"""config/plans.toml: what ships can be read, and a wrong file stops the start with words that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.plans import Plans, PlansError, load_plans, plans_file

SHIPPED = plans_file().read_text(encoding="utf-8")


def read(tmp_path: Path, text: str) -> Plans:
    """Load a file of plans with this text."""
    place = tmp_path / "plans.toml"
    place.write_text(text, encoding="utf-8")
    return load_plans(str(place))


def test_the_shipped_plans() -> None:
    plans = load_plans()
    assert [(one.name, one.price, one.overage, one.self_service) for one in plans.listed] == [
        ("free", 0, None, True),
        ("starter", 20_000_000, 200_000, True),
        ("pro", 100_000_000, 100_000, True),
        ("enterprise", 0, None, False),
    ]
    assert plans.free.name == "free"
    assert plans.find(plans.free.id) is plans.free
    assert plans.named("gold") is None


def test_what_is_no_longer_offered_is_found_and_not_listed(tmp_path: Path) -> None:
    plans = read(tmp_path, SHIPPED.replace('price_monthly = "100"', 'price_monthly = "100"\nis_active = false'))
    assert [one.name for one in plans.listed] == ["free", "starter", "enterprise"]
    assert plans.named("pro") is not None


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('default = "free"', 'default = "gold"', "default='gold': no such plan"),
        ('default = "free"', 'default = "starter"', "default='starter': who has chosen nothing has no way to pay"),
        ('price_monthly = "20"', "price_monthly = 20", "plan.starter.price_monthly=20: Input should be a valid string"),
        ('price_monthly = "20"', 'price_monthly = "-20"', "plan.starter.price_monthly='-20': must be a plain decimal"),
        ('price_monthly = "20"', 'price_monthly = "0.0000001"', "has more than 6 digits after the point"),
        ("max_members = 10\n", "max_members = 0\n", "plan.starter.max_members=0"),
        ("max_members = 10\n", "max_people = 10\n", "plan.starter.max_people=10: no such field"),
        ("included_calls = 250_000\n", "", "overage_price: nothing is beyond unlimited calls"),
        ("000000000003", "000000000002", "id: two plans have one id"),
        ("[plan.pro]", "[plan.Pro]", "plan.Pro.name='Pro'"),
        ("2026-11-30T00:00:00Z", "2026-11-30T00:00:00", "need a time zone"),
        ("[plan.free]", "[plan.free", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in SHIPPED
    with pytest.raises(PlansError) as refusal:
        read(tmp_path, SHIPPED.replace(old, new, 1))
    assert "plans.toml: " in str(refusal.value)
    assert fault in str(refusal.value)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlansError, match=r"gone\.toml: cannot be read"):
        load_plans(str(tmp_path / "gone.toml"))
    with pytest.raises(PlansError, match="needs at least one table"):
        read(tmp_path, 'default = "free"\nplan = {}\n')

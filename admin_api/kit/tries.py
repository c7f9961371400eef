"""How often somebody may try a password or have a letter sent.

Tries are counted before they are looked at, so that many at once gain nothing, and the right one counts too. There are
three counts: of one address at one account (tight), of all addresses at one account (loose, because whoever uses it up
locks the owner out), and of one address at all accounts. An account is counted by the digest of its e-mail address,
whether it exists or not.
"""

from __future__ import annotations

from fastapi import Request

from admin_api.kit.access import address_of, limited
from gateway.errors import NotConfigured
from gateway.identity.emails import counted
from gateway.identity.principals import Principal
from gateway.limits.limiter import Check, Policy
from gateway.services import Services

QUARTER, HOUR = 900, 3_600


async def count_login(request: Request, services: Services, email: str) -> None:
    """Count a try at a password. Raises RateLimited."""
    it, address, account = services.settings.limits, address_of(request), counted(email)
    await limited(services, Check(address, Policy("logins-address", it.logins_per_address, QUARTER)))
    await limited(services, Check(f"{account}@{address}", Policy("logins", it.logins, QUARTER)))
    await limited(services, Check(account, Policy("logins-account", it.logins_per_account, HOUR)))


async def may_write(services: Services, email: str, kind: str = "letters") -> bool:
    """Count a letter to a mailbox, and return whether it may be sent; whoever asked is not told."""
    check = Check(counted(email), Policy(kind, services.settings.limits.letters, HOUR))
    return (await services.limiter.check(check)).allowed


async def may_invite(services: Services, inviter: Principal, email: str) -> bool:
    """Count a letter that somebody has sent to another person's mailbox, and return whether it may be sent.

    Raises RateLimited for an account that invites too many; that a mailbox had its share already is not told. What a
    mailbox gets for its own account is counted apart: nobody's invitations keep a new password from its owner.
    """
    if not services.mail.open:
        return False
    most = services.settings.limits.invitations
    await limited(services, Check(f"account:{inviter.account_id}", Policy("invitations", most, HOUR)))
    return await may_write(services, email, "invitation-letters")


def need_mail(services: Services, so: str = "nobody can sign up by e-mail") -> None:
    """Demand that letters can be sent. Raises NotConfigured, for every address alike."""
    if not services.mail.open:
        raise NotConfigured(f"This gateway has no mail server (smtp.host), so {so}.")

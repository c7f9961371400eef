"""What letters say. Plain text, nothing that a caller wrote: a sign-up with an odd name must not carry its words into
a stranger's mailbox.

Links lead to `server.public_url`, never to a Host that a request named. Their token is in the fragment, which browsers
send to no server, so no log of a proxy has it; the page there asks for a click, because mail filters open links.
"""

from __future__ import annotations

from dataclasses import dataclass, field

VERIFY_PAGE, RESET_PAGE = "/account/verify-email", "/account/reset-password"
INVITATION_PAGE = "/account/invitation"


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter as it is sent."""

    recipient: str
    subject: str
    text: str = field(repr=False)


def verify(recipient: str, public_url: str, token: str) -> Letter:
    """Ask whether the owner of an address wants the account."""
    return Letter(
        recipient,
        "Confirm your e-mail address",
        f"Somebody, we hope you, signed up at {public_url} with this e-mail address.\n\n"
        f"Confirm it here within a day:\n\n{public_url}{VERIFY_PAGE}#{token}\n\n"
        "If it was not you, do nothing: without your confirmation there is no account. Do not confirm an account that\n"
        "somebody else asked for: it would have their password.\n",
    )


def already_known(recipient: str, public_url: str) -> Letter:
    """Tell somebody who has an account that there was another sign-up."""
    return Letter(
        recipient,
        "You already have an account",
        f"Somebody, maybe you, signed up at {public_url} with this e-mail address, which has an account already.\n"
        "Nothing was changed. If you forgot your password, ask for a link by which to choose a new one.\n",
    )


def reset(recipient: str, public_url: str, token: str) -> Letter:
    """Give the owner of an account a way to a new password."""
    return Letter(
        recipient,
        "Choose a new password",
        f"Somebody, we hope you, asked for a new password for your account at {public_url}.\n\n"
        f"Choose it here within half an hour:\n\n{public_url}{RESET_PAGE}#{token}\n\n"
        "If it was not you, do nothing: your password stays as it is.\n",
    )


def password_changed(recipient: str, public_url: str) -> Letter:
    """Tell the owner of an account that its password is another one."""
    return Letter(
        recipient,
        "Your password was changed",
        f"The password of your account at {public_url} was changed, and every other login has ended.\n\n"
        "If it was not you, ask for a new password now, and revoke the API keys that you do not know.\n",
    )


def invitation(recipient: str, public_url: str, token: str) -> Letter:
    """Give somebody the way into an organization; its name is not told, because whoever invites has chosen it."""
    return Letter(
        recipient,
        "You are invited to an organization",
        f"Somebody at {public_url} invites you to join an organization there.\n\n"
        f"Answer the invitation here within a week of its date:\n\n{public_url}{INVITATION_PAGE}#{token}\n\n"
        "The page says which organization it is once you have logged in with this e-mail address. If you do not\n"
        "expect an invitation, do nothing: without your answer you join nothing.\n",
    )

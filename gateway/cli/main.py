"""Entry point of `tollway`: which commands exist, and how a failure looks (one line on standard error, no traceback).

To add a command or group: write it in a file of its own and add one line to COMMANDS. A command's module is imported
when it is used, so that `tollway dev` does not pay for what it does not need.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

import click

from gateway.devservices.processes import ServiceError
from gateway.errors import Problem
from gateway.request_body import LINES, UNSTORABLE
from gateway.settings import SettingsError

# name: (module:attribute, one line for --help)
COMMANDS = {
    "dev": ("gateway.cli.dev:dev", "Run everything on this machine: database, cache, demo publishers, gateway."),
    "serve": ("gateway.cli.serve:serve", "Run the gateway only, against your own PostgreSQL and Valkey."),
    "migrate": ("gateway.cli.migrate:migrate", "Bring the database schema up to this version."),
    "config": ("gateway.cli.config:config", "Check and list settings."),
    "wallet": ("gateway.cli.wallet:wallet", "Show wallets, grant credit and correct balances."),
    "approvals": ("gateway.cli.approvals:approvals", "Decide about money that waits for another operator."),
    "plan": ("gateway.cli.plan:plan", "List plans, and show or set what an organization has."),
    "find": ("gateway.cli.find:find", "Find accounts, keys and publishers, and one call by its request id."),
    "suspend": ("gateway.cli.suspend:suspend", "Stop a publisher, key, account, organization or wallet."),
    "restore": ("gateway.cli.suspend:restore", "End a suspension."),
    "suspensions": ("gateway.cli.suspend:suspensions", "List what is suspended, since when and why."),
    "publisher": ("gateway.cli.publisher:publisher", "List, show, create, test, verify and switch publishers."),
    "project": ("gateway.cli.project:project", "Show and empty IP allow-lists of projects."),
    "oauth": ("gateway.cli.oauth:oauth", "List OAuth providers, and make one the platform's."),
    "exchanges": ("gateway.cli.exchanges:exchanges", "Refund a call; list and resolve exchanges without an end."),
    "deposits": ("gateway.cli.deposits:deposits", "Show deposits by card, and give them back."),
    "payments": ("gateway.cli.payments:payments", "Show payments on a chain, and what became of them."),
    "payouts": ("gateway.cli.payouts:payouts", "Show payouts to publishers, and try or cancel what waits."),
    "purchases": ("gateway.cli.purchases:purchases", "Show what was bought by x402, and the wallet that pays for it."),
    "receipt": ("gateway.cli.receipt:receipt", "Verify receipts of paid calls."),
    "secrets": ("gateway.cli.secrets:secrets", "Make, rotate and check the keys that encrypt credentials."),
    "fault-points": ("gateway.cli.fault_points:fault_points", "List where a development gateway can be made to fail."),
    "ledger": ("gateway.cli.ledger:ledger", "Prove that the books balance, and archive old months."),
    "analytics": ("gateway.cli.analytics:analytics", "Prove the sums by day against the ledger, or make them anew."),
    "invoices": ("gateway.cli.invoices:invoices", "Make, list, issue and void the invoices of a month."),
    "audit": ("gateway.cli.audit:audit", "Read the audit logs, and prove that nobody changed them."),
}


# Options whose text may have several lines, as in bodies.
SEVERAL_LINES = ("--reason", "--note")


def demand_clean(arguments: Sequence[str]) -> None:
    """Raise UsageError for control characters and half characters on the command line: its texts are stored and shown.

    Line ends and tabs are for reasons and notes only: elsewhere they would forge lines wherever a name is listed.
    """
    before = ""
    for argument in arguments:
        option = argument.partition("=")[0] if argument.startswith("--") else before
        where = f"{option} has" if option else "an argument has"
        if UNSTORABLE.search(argument):
            raise click.UsageError(f"{where} a control character, or bytes that are not UTF-8; leave them out")
        if LINES.search(argument) and option not in SEVERAL_LINES:
            raise click.UsageError(f"{where} a line end or a tab; write it on one line")
        before = argument if argument.startswith("-") else ""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the named command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def version() -> str:
    """Return the installed version; a bare checkout has none."""
    try:
        return importlib.metadata.version("tollway")
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), message="%(version)s")
def cli() -> None:
    """Tollway: AI agents pay per call, publishers are paid for what was delivered."""


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        demand_clean(sys.argv[1:])
        status: object = cli.main(prog_name="tollway", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except SettingsError as error:
        _fail(str(error), 2)
    except Problem as error:
        _fail(error.detail, 1)
    except (ServiceError, OSError) as error:
        _fail(str(error), 1)
    except Exception as error:
        if not is_expected(error):
            raise
        _fail(str(error), 1)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def is_expected(error: Exception) -> bool:
    """Say whether the error speaks for itself: what the database or its migrations refuse, known by module.

    By name, because importing asyncpg here would cost every command its import.
    """
    return any(
        kind.__module__.startswith("asyncpg.") or kind.__name__ == "MigrationError" for kind in type(error).__mro__
    )


def _fail(message: str, status: int) -> None:
    click.echo("\n".join(f"tollway: {line}" for line in message.splitlines() or ["failed"]), err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()

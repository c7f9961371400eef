"""`tollway fault-points`: where a development gateway can be made to fail."""

from __future__ import annotations

import click

from gateway.faults import ACTIONS, POINTS


@click.command("fault-points")
def fault_points() -> None:
    """List the points that TOLLWAY_FAULT=<point>:kill|hang|error can arm."""
    width = max(map(len, POINTS))
    for name, text in POINTS.items():
        click.echo(f"{name:<{width}}  {text}")
    click.echo(f"\nactions: {', '.join(ACTIONS)}; for example TOLLWAY_FAULT=authorize.after:kill tollway serve")

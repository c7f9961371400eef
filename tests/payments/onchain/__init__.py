"""Calls that are paid on a chain, through the public door of a running gateway."""

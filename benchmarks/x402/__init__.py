"""Calls that are paid on a chain, side by side: our three settlement policies and the official SDKs' servers."""

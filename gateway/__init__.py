"""Tollway: a payment-metering reverse-proxy gateway. `gateway.app` is the composition root; start reading there."""

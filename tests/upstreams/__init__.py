"""Tests of gateway/upstreams. wire.py is the scripted server that they talk to."""

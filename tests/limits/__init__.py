"""Tests of gateway/limits, all against a real Valkey."""

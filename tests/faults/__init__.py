"""Servers that fail on purpose, for tests."""

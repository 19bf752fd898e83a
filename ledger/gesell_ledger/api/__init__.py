"""Speaks HTTP: `routes` is the only table of paths; handlers decode, call one thing, encode."""

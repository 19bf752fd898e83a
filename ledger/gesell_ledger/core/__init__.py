"""Decides. Pure: Books in, a Decision or a Refusal out; no clock, no network, no database, no randomness.

`decide.decide` is the one way in. Its order is the order of checks of SPEC §3; the rules of each area stand in the
module of that area: `membership`, `money`.
"""

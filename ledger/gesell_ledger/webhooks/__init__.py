"""Delivering to other people's endpoints: what may be one, how a message is signed and sent, when it is tried again.

Knows no commons, no entry and no database: what to deliver to whom is the deliverer's.
"""

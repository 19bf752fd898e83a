"""What two parties who do not trust each other must agree on: bytes, signatures, books, the law of demurrage.

Pure: nothing below this package reads a clock, opens a socket, draws a random number or knows a database.
The published contract is `protocol/SPEC.md`; where the two disagree, the code is wrong.
"""

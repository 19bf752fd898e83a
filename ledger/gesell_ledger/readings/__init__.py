"""What is derived from the log and may lag behind it: relationships, standings, circulation.

Everything here can be made again from the entries alone; docs/readings.md has the formulas.
"""

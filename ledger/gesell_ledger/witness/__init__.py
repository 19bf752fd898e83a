"""A witness of logs (C2SP tlog-witness): cosigns each log's checkpoints as long as they lead up from each other.

`submissions` and `trusted` judge and are pure; `records` remembers; `cosigning` joins them; `serving` speaks HTTP. It
stands beside the ledger and knows none: any C2SP log can be witnessed.
"""

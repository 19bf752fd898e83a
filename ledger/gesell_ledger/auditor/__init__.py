"""The auditor: checks a commons' log with no trust and no database, entry by entry, through the core's own `decide`.

Owns what is checked and what is said when it does not hold. `checks` has the list, `walk` goes along the log, `memory`
keeps what must be remembered of it, `files` and `web` fetch it. Must not know storage: whoever has the log can audit.
"""

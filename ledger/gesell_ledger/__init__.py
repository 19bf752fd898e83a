"""The Gesell ledger service: core decides, storage keeps, the sequencer orders, the api speaks HTTP."""

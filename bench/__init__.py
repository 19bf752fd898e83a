"""The harness: loads a running service from outside and measures it. Nothing of the product imports it."""

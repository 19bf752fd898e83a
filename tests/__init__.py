"""Tests mirror the source; shared builders stand beside them."""

"""Decisions: pure Python, no Django, ``now`` is always an argument."""

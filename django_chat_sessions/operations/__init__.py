"""Verbs: one function is one transaction with its events. Every door calls these, and so may the host project.

The session that an operation takes is refreshed in place. Each function has a twin for async code, named with a
leading ``a`` (``aopen``, ``aappend``, …).
"""

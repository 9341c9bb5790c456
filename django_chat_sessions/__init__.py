"""Chat sessions that live in the project's own database."""

__version__ = "0.1.0"

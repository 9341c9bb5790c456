"""An app of a host project that brings agents."""

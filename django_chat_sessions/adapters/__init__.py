"""One module per agent framework or client protocol; each needs an extra of its own."""

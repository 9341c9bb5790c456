"""The HTTP API: it translates, calls one operation, and answers. Version 1 of the contract is in the documentation."""

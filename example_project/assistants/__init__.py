"""The agents of the example, its one page and its set-up."""

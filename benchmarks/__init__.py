"""What things cost on PostgreSQL, each against a floor written by hand in the same run (`make bench`)."""

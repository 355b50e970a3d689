"""Networks that are ready to answer, one runtime a file."""

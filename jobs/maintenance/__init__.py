"""Services that keep the tables in order. Every worker runs them, one after the other."""

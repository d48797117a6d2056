"""How the tests are selected, repeated, reported, and run side by side."""

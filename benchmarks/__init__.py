"""Measures speed, fairness, recovery and growth."""

"""Budgets, what is decided by them, and how often that would be wrong."""

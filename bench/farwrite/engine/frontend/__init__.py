"""Doors: clients of common protocols write to the volume of a primary. `frontend.py` is what the rest of farwrite sees."""

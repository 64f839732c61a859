"""Drills: what becomes of acknowledged writes when the near site is lost, and of new ones when the link is."""

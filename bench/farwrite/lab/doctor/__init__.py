"""What this machine can emulate and how well: each finding is ok, poor or missing, with its numbers and what mends it."""

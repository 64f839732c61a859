"""Where lab, engine and load meet: runs and their rounds, searches, drills, two revisions side by side, a far host."""

"""What changed between recordings: figures, baselines, history, and other tools' results."""

"""Ways to say what was found. Nothing heavy is imported here: `compare` and `--help` come past."""

"""From a recording to estimates and verdicts. Reads recordings only; the same file always gives the same numbers."""

"""The deterministic simulator: the engine's own compiled loops in a world in memory, driven by one seed."""

"""For other people's tests: two sites at a distance, and budgets on what they measured. `pytest_plugin` hands both out."""

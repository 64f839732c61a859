"""What is written to: a target is submitted to, makes progress, and tells how far it has completed."""

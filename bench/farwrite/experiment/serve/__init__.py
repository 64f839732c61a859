"""`farwrite serve`: a replicated volume whose primary opens doors to real clients, kept up as a service manager would."""

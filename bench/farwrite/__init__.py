"""farwrite: how far away can the second copy of a write be?"""

__version__ = "0.1.0"

"""MUSIC for multi-turn reward models, as a Ray-distributed system (arXiv 2512.24693)."""

__version__ = "0.1.0"

"""AegisOps kernel: the only package every app may import. Nothing happens at import."""

__version__ = "0.1.0"

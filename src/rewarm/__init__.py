"""Continue the pretraining of a language model instead of training a new one."""

__all__ = ["__version__"]

__version__ = "0.1.0"

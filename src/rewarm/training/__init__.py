"""The loop and all that a run needs around it. Read `loop.py` first: it fits on one screen."""

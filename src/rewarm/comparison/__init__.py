"""Experiments: arms of one comparison, what was claimed of them beforehand, and what came of it."""

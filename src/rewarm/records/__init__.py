"""Typed facts that the stages exchange, and the run folder that holds them."""

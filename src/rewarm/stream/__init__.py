"""Streams of labelled examples whose classes come task after task, and what learns from them."""

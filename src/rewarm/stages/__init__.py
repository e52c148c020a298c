"""One file per verb, each a short composition root: only here are concrete classes picked."""

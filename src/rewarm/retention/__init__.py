"""What keeps the base's knowledge beside replay of real text."""

"""What was learned and what was forgotten: figures with their items, and what can be concluded."""

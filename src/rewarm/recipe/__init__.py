"""What a person writes: the recipe, its fields, and how it is read."""

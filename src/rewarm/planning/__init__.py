"""From a recipe, model facts and corpus facts to a frozen plan. Nothing here imports torch."""

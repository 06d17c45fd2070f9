"""The laboratory: recipes, runs, their records, the claims that these decide, and what the book shows of them."""

"""The laboratory: recipes, the runs that they made, the claims that these test, and how the book shows them.

`recipes` → `runs` → `records` → `claims` and `verdicts` → `figures` and `tables`; nothing of it is needed for a lesson.
"""

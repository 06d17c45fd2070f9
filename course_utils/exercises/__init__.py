"""Self-checks for the exercises, a file a session, and the checks of a first batch that `fit` makes."""

"""Self-checks of the exercises, one file per session, and the checks that `fit` makes of a run and its first batch."""

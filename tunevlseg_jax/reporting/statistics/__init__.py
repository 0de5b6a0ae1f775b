"""Statistics of per-case scores, on plain arrays: intervals, paired tests, rankings, and the risk of a false claim."""

"""Tell the questions of a plan apart, metric by breakdown, and whether each was registered before the test."""

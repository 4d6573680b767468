"""Read the rows once for several metrics and breakdowns, and hand each of them its own part of the answer."""

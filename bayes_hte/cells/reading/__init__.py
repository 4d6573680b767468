"""Open tables of any engine and files, and name what stands in them."""

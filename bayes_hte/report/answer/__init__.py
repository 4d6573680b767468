"""The answer at the top of the page: two sentences for each arm, and what must be kept in mind with them."""

"""Judge what a test says of the next one: where two disagree, what a repetition would show, what it would be worth."""

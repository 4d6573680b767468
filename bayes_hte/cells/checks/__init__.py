"""Say what is doubtful about a cell table, in sentences a person can act on."""

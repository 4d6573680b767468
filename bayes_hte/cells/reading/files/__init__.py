"""Open what data come in, from a text file to a database server, read-only, as one table each."""

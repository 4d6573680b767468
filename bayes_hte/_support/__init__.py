"""Help the layers without knowing what they are for: checks of arguments, files written whole, CSV, JSON, phrases."""

"""Add cell tables up, take them apart, and keep small cells out of them."""

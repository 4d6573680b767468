"""Make cells of tables that hold figures already: one row per cell, per segment, per value, or published estimates."""

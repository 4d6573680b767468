"""Place text, axes and panels on a sheet measured in points, and write it to a file."""

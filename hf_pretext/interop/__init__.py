"""Files that other libraries read."""

"""Public data by name: where it is, what it may be used for, and how to know that it came whole."""

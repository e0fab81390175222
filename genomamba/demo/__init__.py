"""A language model and a classifier from a small piece of human and mouse DNA that ships with the package."""

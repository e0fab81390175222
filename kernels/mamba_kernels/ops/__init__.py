"""The operators, a folder each: the same file names in every one, beginning with `interface` and `reference`."""

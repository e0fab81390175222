"""What each command of `genomamba` does, one module a command."""

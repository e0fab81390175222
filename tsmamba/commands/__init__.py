"""What each command of `tsmamba` does, one module a command."""

"""What `genomamba` takes on the command line: a module for each kind of work."""

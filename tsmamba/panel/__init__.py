"""Series on a common clock: the panel, its windows, scaling, seasons and holidays."""

"""The methods that `auto` chooses from, and those that every forecast is compared with."""

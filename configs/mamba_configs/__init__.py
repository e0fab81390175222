"""YAML presets, every field commented, read through `importlib.resources`."""

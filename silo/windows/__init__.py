"""The Windows personality."""

"""The HTTP routes, one file a thing."""

"""Ways to the outside: one file is one channel."""

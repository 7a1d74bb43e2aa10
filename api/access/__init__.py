"""Who is let in, what they may see, and for how long."""

"""What HTTP requests have in common."""

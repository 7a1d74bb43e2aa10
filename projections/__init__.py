"""Pure apply and decide functions, and the SQL store that keeps their state."""

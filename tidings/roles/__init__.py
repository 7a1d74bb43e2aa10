"""The roles as processes: settings in, the room's `run`, an exit code out."""

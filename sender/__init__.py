"""The delivery queue, retries, and one file per channel."""

"""The live channels: what is followed, who is told, over WebSocket and as event streams."""

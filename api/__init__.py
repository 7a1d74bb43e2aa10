"""The gateway: WebSocket, HTTP, authentication and the web page."""

"""The server's end."""

"""The client's end."""

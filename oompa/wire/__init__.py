"""What both ends speak."""

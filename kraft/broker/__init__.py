"""What a request does, whichever door it came through."""

"""Published methods and our own, each a small function that fills in a schedule."""

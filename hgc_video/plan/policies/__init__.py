"""Published methods and our own, one a file: each fills in a plan for a graph and a number of steps."""

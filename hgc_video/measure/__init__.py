"""Measures what was done: MACs, memory, quality."""

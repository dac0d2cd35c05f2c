"""Keeps a run inside a memory budget: windows, exact splits, and where idle caches wait."""

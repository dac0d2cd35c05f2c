"""Adapters: they name a model's blocks, and find and load models; they neither keep nor decide."""

"""Clips in and out, their sound and timeline, and the controls that are made of them."""

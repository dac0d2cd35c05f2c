"""Measures a model once and searches the schedule for a budget."""

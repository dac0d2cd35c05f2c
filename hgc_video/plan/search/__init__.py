"""Finds good schedules from measured prices; pure data, no model."""

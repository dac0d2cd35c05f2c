"""Carries a schedule out on live models: keeps tensors, wraps forwards, decides nothing."""

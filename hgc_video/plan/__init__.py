"""What will be computed, reused and skipped: plain data and pure functions, no tensor in sight."""

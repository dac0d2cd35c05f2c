"""The page: `generate` in a browser, served to this machine; makes its options and nothing of its own."""

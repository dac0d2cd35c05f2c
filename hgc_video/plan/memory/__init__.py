"""Long clips and little memory: windows, splits, where idle caches live, and how fast a device is."""

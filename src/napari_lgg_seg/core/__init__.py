"""Everything that works without a window: no Qt, no napari, and torch only when it is used."""

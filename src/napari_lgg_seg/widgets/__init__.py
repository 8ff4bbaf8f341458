"""Dock widgets: one file each, and one for what they share."""

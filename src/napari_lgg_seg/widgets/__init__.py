"""Dock widgets: a folder for each, and one for what they share."""

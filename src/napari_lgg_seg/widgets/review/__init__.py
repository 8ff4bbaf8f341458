"""What patient is open in the viewer, and its edits, kept from loss."""

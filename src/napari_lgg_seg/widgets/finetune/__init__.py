"""The Fine-tune widget."""

"""The Correct widget: tools for one labels layer."""

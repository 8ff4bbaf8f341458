"""Reports of segmented patients: contact sheets, and an HTML page about all of them."""

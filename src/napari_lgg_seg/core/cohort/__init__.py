"""Results of many patients: what is known of each, and one way through all of them."""

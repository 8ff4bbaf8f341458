"""From a patient's volume to probabilities and labels."""

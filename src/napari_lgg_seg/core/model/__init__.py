"""Networks, model files, and preprocessing with the way back to the patient's grid."""

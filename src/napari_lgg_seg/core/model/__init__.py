"""Networks, model files, and preprocessing with its inverse back to the patient's grid."""

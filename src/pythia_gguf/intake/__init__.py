"""What a user gives: a GGUF of a whole model, opened and checked, or something else, recognized by its name."""

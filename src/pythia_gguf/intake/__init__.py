"""What a user gives: a GGUF of a whole model, opened and checked, or something else, told by its name.

Knows neither what will be done with it nor the Hub.
"""

"""The GGUF container: reader that validates before use, and writer of headers."""

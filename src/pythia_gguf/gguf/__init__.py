"""The GGUF container: a reader that validates files before use, and a writer of headers."""

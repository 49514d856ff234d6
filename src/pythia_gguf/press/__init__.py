"""The one-pass quantizer: a checkpoint is read once, each weight is encoded once per format, all files are written."""

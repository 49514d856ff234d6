"""`python -m pythia_gguf` is the `pythia` command."""

from pythia_gguf.cli.main import main

if __name__ == "__main__":
    main()

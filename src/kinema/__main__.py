"""`python -m kinema`."""

from kinema.cli import main

if __name__ == "__main__":
    main()

"""`python -m batchinfer`."""

from batchinfer.cli.main import main

if __name__ == "__main__":
    main()

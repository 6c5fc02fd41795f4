"""python -m flowprep"""

from flowprep.cli import main

if __name__ == "__main__":
    main()

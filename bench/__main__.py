"""``python -m bench`` is the comparison with redis-server."""

import sys

from bench.compare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

from __future__ import annotations

from prefixmux.cli import main

if __name__ == "__main__":
    main()

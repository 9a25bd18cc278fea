"""Starts the fake Seam: python3 src/test/fake_seam [options]; --help tells all."""

import os
import sys

if not __package__:
    # It was started as a folder: the folder's parent is where its files find each other as one package.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from fake_seam.process import main

main()

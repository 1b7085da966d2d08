"""`make dist`: the functions of one architecture, built and packed with their template, ready for `sam deploy`.

The same source, toolchain and tools give the same bytes, wherever they are built.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

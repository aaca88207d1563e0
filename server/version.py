"""The version of this software, as it is written in setup.cfg and told to clients."""

VERSION = "0.1.0"

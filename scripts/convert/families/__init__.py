"""One file for each architecture."""

from . import bamboo, llama, nemotron

ALL = [module.FAMILY for module in (llama, bamboo, nemotron)]

"""Shared training of networks: the loop, windows, and the base class of torch decoders. Importing it imports torch."""
